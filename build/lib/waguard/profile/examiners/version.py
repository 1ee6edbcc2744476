"""Whether an older browser is to use a profile of a newer one: it would drop the databases it does not understand."""

import contextlib
import re
from collections.abc import Iterator

from waguard.errors import ProfileTooNew
from waguard.profile.examiners.subject import Doubt, Subject
from waguard.system.files import Below

_MOST = 1024


def examine(subject: Subject) -> Iterator[Doubt]:
    """Raises `ProfileTooNew`."""
    # A full Chromium writes its version down itself; headless-shell does not, so the witness has it too.
    told = []
    with contextlib.suppress(FileNotFoundError):
        told.append(Below(subject.profile, "Last Version").data(_MOST).decode(errors="replace"))
    told += [subject.witness.browser] if subject.witness is not None else []
    newest = max((found for text in told if (found := _major(text)) is not None), default=None)
    ours = _major(subject.browser)
    if newest is not None and ours is not None and newest > ours:
        raise ProfileTooNew(
            f"The profile was used by browser version {newest}; version {ours} would drop its login.",
            hint="Upgrade the browser: apt-get install --only-upgrade chromium-headless-shell. "
            "Or give the login up: waguard connect CODE --fresh",
            profile_version=newest,
            browser_version=ours,
        )
    yield from ()


def _major(text: str) -> int | None:
    found = re.match(r"\s*(\d{1,6})\.", text)
    return int(found[1]) if found else None
