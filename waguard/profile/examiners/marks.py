"""Whether the login's own marks are there, of a client that was connected: files can be whole and hold nothing any more."""

from collections.abc import Iterator

from waguard.core.model import Verdict
from waguard.profile import leveldb, login_files
from waguard.profile.examiners.subject import Doubt, Subject
from waguard.system.files import Below


def examine(subject: Subject) -> Iterator[Doubt]:
    if not subject.login_on_disk:
        return
    for name in login_files.database_names(subject.origin):
        directory = Below(subject.profile, name)
        if not directory.is_directory():
            yield Doubt(Verdict.DAMAGED, name, "it is gone, and the login was in it")
            continue
        try:
            empty = leveldb.is_empty(directory)
        except leveldb.Unreadable:
            continue  # `databases` says so
        if empty:
            yield Doubt(Verdict.DAMAGED, name, "it is empty, and the login was in it")
        elif login_files.lacks_mark(directory, subject.origin):
            yield Doubt(
                Verdict.DAMAGED,
                name,
                "the mark of the login was in it and is gone",
            )
