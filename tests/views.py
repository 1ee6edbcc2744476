"""Sessions and a snapshot as a control port shows them."""

from dataclasses import replace

from waguard.api import qr as drawing
from waguard.core.model import Link, Login, Process, Status, Wanted
from waguard.core.shown import BrowserView, FailureView, QrView, SessionView

DOWN = SessionView(
    client="demo",
    status=Status.STOPPED,
    wanted=Wanted.DOWN,
    process=Process.DOWN,
    link=Link.UNKNOWN,
    reason=None,
    since=0.0,
    attempt=None,
    qr=None,
    profile=None,
    snapshot=None,
    check=None,
    generation=None,
    login=Login.NONE,
    saved=None,
    wid=None,
    push_name=None,
    page_version=None,
    signs=(),
    browser=None,
    stages_ms={},
    automatic_restarts=0,
    failure=None,
    finding=None,
    next_try_s=None,
    memory_mb=None,
)
STARTING = replace(
    DOWN,
    status=Status.STARTING,
    wanted=Wanted.UP,
    process=Process.STARTING,
    attempt="a77e3970",
    stages_ms={"admit": 0.1, "prepare": 12.3},
)
SCAN = replace(
    STARTING,
    status=Status.AWAITING_SCAN,
    process=Process.UP,
    link=Link.AWAITING_SCAN,
    qr=QrView("2@a,b,c,d,1", 0.2, 0.0),
    signs=("data-ref",),
    profile="fresh",
    generation="20260101T000000-00000000",
    browser=BrowserView((4711, 4712), "bubblewrap", 0.0),
    stages_ms={**STARTING.stages_ms, "start": 206.0, "open": 1234.0},
)
CONNECTED = replace(SCAN, status=Status.CONNECTED, link=Link.CONNECTED, qr=None, profile="kept")
FAILED = replace(
    DOWN,
    status=Status.FAILED,
    process=Process.FAILED,
    automatic_restarts=5,
    failure=FailureView("browser_failed", "The browser ended.", "start", "Run: waguard doctor"),
)
SNAPSHOT = {
    "id": "20260101T000000-01234567",
    "client": "demo",
    "taken_at": 1.0,
    "reason": "settled",
    "login": True,
    "refused": False,
    "live": True,
    "browser": "156",
    "generation": "20260101T000000-01234567",
    "bytes": 5000,
}


def blocks(view: SessionView) -> str:
    """Its QR code where there is no terminal."""
    assert view.qr is not None
    return drawing.text(view.qr).decode()
