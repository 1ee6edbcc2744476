"""Whether the browser's settings can be read; it makes them anew if not, and the login is not among them."""

import json
from collections.abc import Iterator

from waguard.core.model import Verdict
from waguard.profile.examiners.subject import Doubt, Subject
from waguard.system.files import Below

_MOST = 1024 * 1024
"""What JSON becomes in memory is many times its size."""


def examine(subject: Subject) -> Iterator[Doubt]:
    for name in ("Local State", "Default/Preferences"):
        try:
            if isinstance(json.loads(Below(subject.profile, name).data(_MOST)), dict):
                continue
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Doubt(Verdict.SUSPECT, name, error.strerror or str(error))
        except (ValueError, RecursionError):
            yield Doubt(Verdict.SUSPECT, name, "it is not a JSON object")
        else:
            yield Doubt(Verdict.SUSPECT, name, "it is not a JSON object")
