"""Whether IndexedDB and Local Storage, where the login is, can be read as they were left."""

from collections.abc import Iterator

from waguard.core.model import Verdict
from waguard.profile import leveldb, login_files
from waguard.profile.examiners.subject import Doubt, Subject


def examine(subject: Subject) -> Iterator[Doubt]:
    for directory in login_files.databases(subject.profile, subject.origin):
        name = directory.name
        strict = name == login_files.database_names(subject.origin)[0]
        try:
            for what in leveldb.examine(directory, strict=strict):
                yield Doubt(Verdict.SUSPECT, name, what)
        except leveldb.Unreadable as error:
            yield Doubt(Verdict.DAMAGED, name, str(error))
