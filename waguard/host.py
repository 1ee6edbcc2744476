"""What this machine has: memory, disk, and the process table. `psutil` is imported here and nowhere else."""

import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

MB = 1024 * 1024


def available_memory_mb() -> int:
    """Memory that can be had without swapping, in MiB."""
    return int(psutil.virtual_memory().available // MB)


def free_disk_mb(path: Path) -> int:
    """Free disk for an unprivileged user below ``path`` (or its nearest existing parent), in MiB."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return int(shutil.disk_usage(path).free // MB)


@cache
def boot_id() -> str:
    """Names this boot of the machine; pids and start ticks mean nothing without it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One line of the process table; ``start_ticks`` are clock ticks since boot."""

    pid: int
    ppid: int
    start_ticks: int
    session: int
    state: str


def process_row(pid: int) -> ProcessRow | None:
    """The process as the kernel sees it now, or none if there is no such process.

    Read straight from ``/proc/PID/stat`` (proc(5): fields 3, 4, 6, 22), since psutil rounds the start time.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return ProcessRow(pid, int(fields[1]), int(fields[19]), int(fields[3]), fields[0])


def process_table() -> list[ProcessRow]:
    """Every process visible to us, one look."""
    rows = (process_row(pid) for pid in psutil.pids())
    return [row for row in rows if row is not None]


def environment_has(pid: int, entry: str) -> bool:
    """Whether the process was started with exactly this ``NAME=value``; false if its environment is hidden from us."""
    try:
        return entry.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def flock_holders(path: Path) -> list[int]:
    """Pids that hold a flock on this very file (device and inode), as far as we may look.

    proc(5): ``/proc/PID/fdinfo/FD`` has a ``lock:`` line for each lock of the open file description.
    """
    try:
        wanted = path.stat()
    except OSError:
        return []
    return [pid for pid in psutil.pids() if pid != os.getpid() and _holds(pid, wanted)]


def _holds(pid: int, wanted: os.stat_result) -> bool:
    try:
        with os.scandir(f"/proc/{pid}/fd") as fds:
            for fd in fds:
                try:
                    seen = os.stat(fd.path)  # noqa: PTH116 (thousands of fds: no Path for each)
                    if (seen.st_dev, seen.st_ino) != (wanted.st_dev, wanted.st_ino):
                        continue
                    if "lock:" in Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text(encoding="ascii"):
                        return True
                except OSError:
                    continue
    except OSError:
        return False
    return False
