"""What it takes to seal a snapshot."""

import threading
from pathlib import Path

from waguard.snapshots.keys import Key, Keyring
from waguard.snapshots.packing import About

ORIGIN = "https_web.whatsapp.com_0"
KEY, OTHER = Key("k1", bytes(range(32))), Key("k2", bytes(32))
RING = Keyring([KEY], Path("keys"))
GO = threading.Event()
ABOUT = About("demo", "20260101T000000-0123abcd", "request", 1.0, "156.0.0.0", ORIGIN, live=False, login=True)
