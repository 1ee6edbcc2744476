"""Whether what bears the name of a login's file is one: a browser that was taken over can make anything of that name."""

from collections.abc import Iterator

from waguard.core.model import Verdict
from waguard.profile import login_files
from waguard.profile.examiners.subject import Doubt, Subject


def examine(subject: Subject) -> Iterator[Doubt]:
    for name, odd in login_files.oddities(subject.profile, subject.origin):
        yield Doubt(Verdict.DAMAGED, name, odd)
