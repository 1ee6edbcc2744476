"""Whether the login's files are still what they were when the last browser had ended."""

from collections.abc import Iterator

from waguard.core.model import Verdict
from waguard.profile import login_files, witness
from waguard.profile.examiners.subject import Doubt, Subject


def examine(subject: Subject) -> Iterator[Doubt]:
    if subject.witness is None:
        return
    if subject.witness.lost:
        yield Doubt(Verdict.DAMAGED, "login", subject.witness.lost)
    if subject.witness.files is None:
        return
    marks = subject.witness.files
    changed = list(witness.compare(subject.profile, marks))
    here = {file.name for file in login_files.database_files(subject.profile, subject.origin)}
    # Databases only ever append and add: then somebody has used the profile, and the structure has the say.
    used = any(grown for _, _, grown in changed) or bool(here - marks.keys())
    for name, what, _ in changed:
        yield Doubt(Verdict.SUSPECT if used else Verdict.DAMAGED, name, what)
