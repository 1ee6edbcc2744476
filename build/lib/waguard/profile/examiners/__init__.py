"""The check before a launch, one examiner a file. Each looks at one thing, reads only, and mends nothing.

Chromium deletes in silence what it finds damaged, so what is damaged has to be found before it starts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from waguard.core.model import Verdict
from waguard.profile.examiners import (
    cookies,
    databases,
    marks,
    owner,
    plain,
    settings,
    singleton,
    version,
    witnessed,
)
from waguard.profile.examiners.subject import Doubt, Subject
from waguard.system.files import NotPlain

EXAMINERS: Sequence[tuple[str, Callable[[Subject], Iterator[Doubt]]]] = (
    ("plain", plain.examine),
    ("owner", owner.examine),
    ("version", version.examine),
    ("singleton", singleton.examine),
    ("witness", witnessed.examine),
    ("databases", databases.examine),
    ("marks", marks.examine),
    ("cookies", cookies.examine),
    ("settings", settings.examine),
)
"""In this order: those that refuse come first."""
STRUCTURE = tuple(one for one in EXAMINERS if one[1] in {plain.examine, databases.examine})
"""What can be asked of a copy, too."""
VERSION = tuple(one for one in EXAMINERS if one[1] is version.examine)
"""What depends on the browser that is to use the profile."""


@dataclass(frozen=True, slots=True)
class Evidence:
    examiner: str
    verdict: Verdict
    path: str
    """Below the profile."""
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    evidence: Sequence[Evidence]

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        found = {one.verdict for one in self.evidence}
        return next(
            (verdict for verdict in (Verdict.DAMAGED, Verdict.SUSPECT) if verdict in found), Verdict.SOUND
        )

    @property
    def why(self) -> str:
        """The first piece of evidence of the worst verdict, as a sentence."""
        worst = next((one for one in self.evidence if one.verdict is self.verdict), None)
        return "" if worst is None else f"{worst.path}: {worst.what}."


def examine(
    subject: Subject, among: Sequence[tuple[str, Callable[[Subject], Iterator[Doubt]]]] = EXAMINERS
) -> Report:
    """Look at a profile that no browser uses. Blocking. Raises `StorageFailed`, `ProfileTooNew`, `ProfileLocked`."""
    evidence = []
    for name, examiner in among:
        try:
            evidence += [Evidence(name, doubt.verdict, doubt.path, doubt.what) for doubt in examiner(subject)]
        except NotPlain as error:
            evidence.append(Evidence(name, Verdict.DAMAGED, _below(subject, error.path), error.what))
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            evidence.append(Evidence(name, Verdict.SUSPECT, str(error.filename or "."), what))
    return Report(tuple(evidence))


def _below(subject: Subject, path: Path) -> str:
    return str(path.relative_to(subject.profile) if path.is_relative_to(subject.profile) else path)
