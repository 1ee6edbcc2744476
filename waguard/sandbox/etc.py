"""What a sandbox has of the machine's /etc: its own directory of copies, kept like the originals.

A file that is bound into a sandbox stays the one it was: whoever replaces it on the machine by a rename, as everybody does who writes
/etc/resolv.conf, replaces a name, and the sandbox holds on to the file. A directory that is bound shows what is renamed in it. It is
the same directory from one daemon to the next, so that browsers that are adopted see the changes too.
"""

import asyncio
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from waguard.observe.bus import Bus
from waguard.system.files import read_state
from waguard.system.threads import in_thread

NAMES: Sequence[str] = ("resolv.conf", "hosts", "nsswitch.conf", "localtime")
_ZONES = Path("/usr/share/zoneinfo")
_MOST = 16 * 1024 * 1024
"""Bytes of one file; a list of blocked hosts may be long."""
_EVERY_S = 2.0

_Stamp = tuple[int, int, int, int, str]
_GONE: _Stamp = (0, 0, 0, 0, "")


class Etc:
    """Owns the directory ``path``; who may read the originals may read it."""

    def __init__(self, path: Path, source: Path = Path("/etc")) -> None:
        self.path = path
        self._source = source
        self._seen: dict[str, _Stamp] = {}
        self._failing = ""

    def make(self) -> None:
        """Have the directory, before anything is bound to it. Blocking. Raises `OSError`."""
        self.path.mkdir(mode=0o755, exist_ok=True)
        self.path.chmod(0o755)
        for left in self.path.glob(".*"):
            left.unlink()

    def refresh(self) -> Sequence[str]:
        """Copy what is another one than at the last time; the names of those. Blocking. Raises `OSError`."""
        return [name for name in NAMES if self._refresh(name)]

    async def look(self, bus: Bus) -> None:
        """Likewise, and say so. What cannot be copied, as on a full disk, stays what it was and is tried again."""
        first = not self._seen
        try:
            changed = await in_thread(self.refresh)
        except OSError as error:
            if str(error) != self._failing:
                self._failing = str(error)
                bus.publish("etc.failed", error=self._failing)
        else:
            self._failing = ""
            if changed and not first:
                bus.publish("etc.changed", files=changed)

    async def keep(self, bus: Bus) -> None:
        """For as long as the daemon runs."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.look(bus)

    def _refresh(self, name: str) -> bool:
        original = self._source / name
        stamp = _stamp(original)
        if stamp == self._seen.get(name):
            return False
        copy = self.path / name
        if stamp == _GONE:
            copy.unlink(missing_ok=True)
        else:
            beside = self.path / f".{name}.{secrets.token_hex(4)}"
            try:
                _copy(original.resolve(), beside)
                beside.rename(copy)
            finally:
                beside.unlink(missing_ok=True)
        self._seen[name] = stamp
        return True


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return _GONE
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, str(path.resolve())


def _copy(original: Path, copy: Path) -> None:
    if original.is_relative_to(_ZONES):  # its place has the zone's name, which is read from there
        copy.symlink_to(original)
        return
    data = read_state(original, _MOST)
    with copy.open("xb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(data)
