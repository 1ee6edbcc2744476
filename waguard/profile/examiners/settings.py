"""Whether the browser's settings can be read; it makes them anew if not, and the login is not among them."""

import json
from collections.abc import Iterator

from waguard.profile.examiners.subject import Doubt, Subject, Verdict


def examine(subject: Subject) -> Iterator[Doubt]:
    for name in ("Local State", "Default/Preferences"):
        path = subject.profile / name
        if not path.is_file():
            continue
        try:
            if isinstance(json.loads(path.read_bytes()), dict):
                continue
        except (ValueError, RecursionError):
            pass
        yield Doubt(Verdict.SUSPECT, name, "it is not a JSON object")
