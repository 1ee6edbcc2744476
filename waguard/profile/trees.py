"""Which logins a tree of names holds: a user data directory, directories on top of it, several of them.

The one rule for what lies on a disk and for what is in an archive: a profile is the directory that has both databases of a
login in it, whatever it and those above are called. Pure.
"""

import re
from collections.abc import Sequence

from waguard.core.plain_text import plain
from waguard.errors import SnapshotRefused
from waguard.profile import login_files

_LONGEST_NAME = 1024
_MOST_LOGINS = 1000
_MOST_LISTED = 20
_DATABASE = re.compile(r"(?P<profile>(.*/)?)IndexedDB/(?P<origin>[^/]+)\.indexeddb\.leveldb/(?P<file>[^/]+)")
_MARKS = re.compile(r"(?P<profile>(.*/)?)Local Storage/leveldb/(?P<file>[^/]+)")


def clean(name: str) -> str:
    """A name from elsewhere as a path below the tree; empty for one that leads out of it, or that no login's file has."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", "."}]  # Windows' own
    return "" if ".." in parts or len(name) > _LONGEST_NAME else "/".join(parts)


class Tree:
    """Is shown the name of each file, and tells then which logins there are."""

    def __init__(self) -> None:
        self._databases: set[tuple[str, str]] = set()
        self._marks: set[str] = set()

    def see(self, name: str) -> None:
        """``name`` is `clean`. Raises `SnapshotRefused` when there are too many to be listed."""
        if (found := _DATABASE.fullmatch(name)) is not None and login_files.holds_records(found["file"]):
            self._databases.add((found["profile"], found["origin"]))
        elif (found := _MARKS.fullmatch(name)) is not None and login_files.holds_records(found["file"]):
            self._marks.add(found["profile"])
        if max(len(self._databases), len(self._marks)) > _MOST_LOGINS:
            raise SnapshotRefused(f"There are more than {_MOST_LOGINS} logins in it.", reason="too_large")

    @property
    def logins(self) -> Sequence[tuple[str, str]]:
        """Of each login its profile's directory, empty or with a slash at its end, and its origin."""
        return sorted(one for one in self._databases if one[0] in self._marks)

    def choose(self, origin: str, wanted: str = "") -> str:
        """The directory of the login that is meant: the only one of this origin, or the one that is called ``wanted``.

        Raises `SnapshotRefused` with those there are.
        """
        there = {label(profile): profile for profile, whose in self.logins if whose == origin}
        chosen = [profile for name, profile in there.items() if wanted in {"", name, plain(name)}]
        if len(chosen) == 1:
            return chosen[0]
        if not there:
            others = ", ".join(sorted({plain(whose, 100) for _, whose in self.logins})[:5])
            raise SnapshotRefused(
                f"There is no login of {origin} in it." + (f" There is one of {others}." if others else ""),
                hint="A Chromium user data directory has Default/IndexedDB and 'Default/Local Storage' in it. "
                "Was the browser closed?",
                reason="no_login",
            )
        names = [plain(name, 200) for name in there]
        listed = ", ".join(names[:_MOST_LISTED]) + (" ..." if len(names) > _MOST_LISTED else "")
        what = (
            f"There is no login {plain(wanted, 200)!r} in it, but"
            if wanted
            else "There are several logins in it:"
        )
        raise SnapshotRefused(
            f"{what} {listed}.",
            hint="Name the one that is meant with the option login.",
            reason="several_logins",
            logins=names[:_MOST_LISTED],
        )


def label(profile: str) -> str:
    """What people call the login in a profile's directory."""
    name = profile.removesuffix("/")
    return name.removesuffix("/Default") or "."


def place(profile: str, name: str) -> str:
    """Where a file of the tree belongs in a user data directory that has only this profile; empty if it is none of its."""
    if name.startswith(profile):
        return f"Default/{name.removeprefix(profile)}"
    above = profile.removesuffix("/").rpartition("/")[0]
    beside = name.removeprefix(f"{above}/") if above else name
    return "" if "/" in beside else beside
