"""What this machine has: memory, disk, and the process table. `psutil` is imported here and nowhere else."""

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

MB = 1024 * 1024


def available_memory_mb() -> int:
    """Memory that can be had without swapping, in MiB."""
    return int(psutil.virtual_memory().available // MB)


MEMORY_PRESSURE = Path("/proc/pressure/memory")
"""PSI of the whole machine, psi.rst of the kernel."""


def stalled(*pressures: Path) -> float | None:
    """Percent of the last ten seconds in which nothing at all got on for want of memory ("full avg10"), the worst of these files.

    None if the kernel does not count it.
    """
    found = [one for one in map(_full_avg10, pressures) if one is not None]
    return max(found, default=None)


def _full_avg10(pressure: Path) -> float | None:
    try:
        line = next(
            one for one in pressure.read_text(encoding="ascii").splitlines() if one.startswith("full ")
        )
        return float(line.split()[1].removeprefix("avg10="))
    except (
        OSError,
        ValueError,
        IndexError,
        StopIteration,
    ):  # some kernels have it and refuse to read it (EOPNOTSUPP)
        return None


def free_disk_mb(path: Path) -> int:
    """Free disk for an unprivileged user below ``path`` (or its nearest existing parent), in MiB."""
    return int(shutil.disk_usage(_existing(path)).free // MB)


def free_inodes(path: Path) -> int | None:
    """Files that can still be made there; none where the file system sets no limit."""
    status = os.statvfs(_existing(path))
    return status.f_favail if status.f_files else None


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


@cache
def boot_id() -> str:
    """Names this boot of the machine; pids and start ticks mean nothing without it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


_NOT_THERE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What procfs answers of a process that has ended, or that it hides. Anything else tells nothing of the process: for want of an fd
nobody is gone."""


def _of_process(pid: int, name: str) -> bytes | None:
    """A file of it in procfs; none if there is no such process, or it hides the file. Raises `OSError`."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except _NOT_THERE:
        return None


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One line of the process table; ``start_ticks`` are clock ticks since boot, ``cpu_ticks`` those it has run."""

    pid: int
    ppid: int
    start_ticks: int
    session: int
    state: str
    cpu_ticks: int = 0


def process_row(pid: int) -> ProcessRow | None:
    """The process as the kernel sees it now, or none if there is no such process.

    Read straight from ``/proc/PID/stat`` (proc(5): fields 3, 4, 6, 14, 15, 22), since psutil rounds the start time.
    Raises `OSError` if it cannot be told.
    """
    if (data := _of_process(pid, "stat")) is None:
        return None
    fields = data.rpartition(b")")[2].decode("ascii").split()
    ran = int(fields[11]) + int(fields[12])
    return ProcessRow(pid, int(fields[1]), int(fields[19]), int(fields[3]), fields[0], ran)


TICKS_S = 1.0 / os.sysconf("SC_CLK_TCK")
"""Seconds of a clock tick."""


def age_s(start_ticks: int) -> float:
    """Seconds since a process of this boot was started, with those in which the machine slept. No wall clock is asked, which may jump."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks * TICKS_S


@dataclass(frozen=True, slots=True)
class Effort:
    """What all threads of a process have done since it began, in seconds."""

    ran_s: float
    waited_s: float
    """They could have run and had no processor."""
    on_disk: bool
    """Its first thread waits for a disk just now."""


def effort(pid: int) -> Effort | None:
    """None if there is no such process. sched-stats.rst of the kernel: the second is ns on a run queue."""
    row = process_row(pid)
    if row is None:
        return None
    waited = 0
    try:
        with os.scandir(f"/proc/{pid}/task") as threads:
            waited = sum(_waited_ns(thread.path) for thread in threads)
    except OSError:
        pass
    return Effort(row.cpu_ticks * TICKS_S, waited / 1e9, row.state == "D")


def _waited_ns(task: str) -> int:
    try:
        return int(Path(f"{task}/schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):  # it has ended, or the kernel has no CONFIG_SCHED_INFO
        return 0


def anonymous_mb(pid: int) -> float:
    """MiB that are the process's own, in memory or swapped out; 0 if there is no such process.

    proc(5), ``status``: unlike ``smaps`` it takes no lock that a process in trouble may hold.
    """
    if (data := _of_process(pid, "status")) is None:
        return 0.0
    text = data.decode("utf-8", "replace")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return sum(float(fields[name].split()[0]) / 1024 for name in ("RssAnon", "VmSwap") if name in fields)


def command_line(pid: int) -> Sequence[str]:
    """The words that the process was started with, or has written over them since; empty if it hides them.

    Chromium's helpers write theirs anew, with spaces between the words; psutil knows that.
    """
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return ()


def all_threads_stopped(pid: int) -> bool:
    """Whether no thread of the process runs any more: it was stopped by a signal, has ended, or is not there."""
    try:
        with os.scandir(f"/proc/{pid}/task") as tasks:
            return all(_thread_state(task.path) in "TtZX" for task in tasks)
    except _NOT_THERE:
        return True


_CRASHES = sum(
    1 << number - 1
    for number in (
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGSEGV,
        signal.SIGSYS,
    )
)
_TERM = 1 << signal.SIGTERM - 1


def crashing(pid: int) -> bool:
    """Whether a thread of the process handles its crash: one of those signals is blocked in it (signal(7)), and others are not."""
    with contextlib.suppress(*_NOT_THERE), os.scandir(f"/proc/{pid}/task") as tasks:
        return any(blocked & _CRASHES and not blocked & _TERM for blocked in map(_blocked, tasks))
    return False


def _blocked(task: "os.DirEntry[str]") -> int:
    """Signals that a thread has blocked: ``SigBlk`` of proc(5)."""
    with contextlib.suppress(*_NOT_THERE):
        said = Path(f"{task.path}/status").read_text(encoding="utf-8", errors="replace")
        return int(said.partition("\nSigBlk:")[2].split()[0], 16)
    return 0


def _thread_state(task: str) -> str:
    try:
        return (
            Path(f"{task}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        )
    except _NOT_THERE:
        return "X"


def descendants(pid: int, rows: Iterable[ProcessRow]) -> set[ProcessRow]:
    """Everything below a process in a look at the table, without itself."""
    children: dict[int, list[ProcessRow]] = {}
    for row in rows:
        children.setdefault(row.ppid, []).append(row)
    found: set[ProcessRow] = set()
    below = list(children.get(pid, ()))
    while below:
        row = below.pop()
        if row not in found:
            found.add(row)
            below += children.get(row.pid, ())
    return found


def below(pid: int) -> Collection[ProcessRow]:
    """Everything below a process now, without itself: what it costs does not grow with what else runs here, where the kernel has lists of children.

    A look is no more of a piece than one at the table is: who is born or loses its parent meanwhile may be missed. Raises `OSError`.
    """
    if not _has_children():
        return descendants(pid, process_table())
    found: dict[int, ProcessRow] = {}
    parents = [pid]
    while parents:
        for child in _children(parents.pop()):
            if child not in found and (row := process_row(child)) is not None:
                found[child] = row
                parents.append(child)
    return found.values()


@cache
def _has_children() -> bool:
    """CONFIG_PROC_CHILDREN, proc(5)."""
    return _of_process(os.getpid(), f"task/{threading.get_native_id()}/children") is not None


def _children(pid: int) -> Iterable[int]:
    """Each thread has a list of those that it has started."""
    with contextlib.suppress(*_NOT_THERE):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (_of_process(pid, f"task/{thread.name}/children") or b"").split())


def process_table() -> list[ProcessRow]:
    """Every process visible to us, one look."""
    rows = (process_row(pid) for pid in psutil.pids())
    return [row for row in rows if row is not None]


def environment_has(pid: int, entry: str) -> bool:
    """Whether the process was started with exactly this ``NAME=value``; false if its environment is hidden from us."""
    data = _of_process(pid, "environ")
    return data is not None and entry.encode() in data.split(b"\0")


def environment_value(pid: int, name: str) -> str | None:
    """The value of a variable that the process was started with; none if it has none, or hides it from us."""
    prefix = f"{name}=".encode()
    data = _of_process(pid, "environ")
    entries = data.split(b"\0") if data is not None else []
    found = next((entry for entry in entries if entry.startswith(prefix)), None)
    return None if found is None else found[len(prefix) :].decode("utf-8", "replace")


def namespace_pids(pid: int) -> Sequence[int]:
    """Its pid in each of the PID namespaces it is in, ours first and its own last, proc(5); empty if it is not there."""
    if (data := _of_process(pid, "status")) is None:
        return ()
    text = data.decode("utf-8", "replace")
    found = next((line for line in text.splitlines() if line.startswith("NSpid:")), "")
    return [int(one) for one in found.split()[1:]]


def tcp_inode(from_: tuple[str, int], to: tuple[str, int]) -> int | None:
    """The socket that has this connection at its beginning, IPv4 on this machine; None if there is none, proc(5)."""
    wanted = [f"{_reversed(host)}:{port:04X}" for host, port in (from_, to)]
    with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123 (thousands of lines, one by one)
        for line in table:
            fields = line.split()
            if fields[1:3] == wanted:
                return int(fields[9]) or None
    return None


def _reversed(host: str) -> str:
    """An address as that table has it, on a machine of either byte order."""
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}"


def has_socket(pid: int, inode: int) -> bool:
    """Whether the process has it among its fds, as far as we may look."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as fds:
            names = [fd.path for fd in fds]
    except _NOT_THERE:
        return False
    for name in names:
        with contextlib.suppress(OSError):
            if os.readlink(name) == f"socket:[{inode}]":  # noqa: PTH115 (it is no path)
                return True
    return False


def flock_holders(paths: Iterable[Path]) -> dict[Path, list[int]]:
    """Pids that hold a flock on these very files (device and inode), as far as we may look; one look at all fds.

    proc(5): ``/proc/PID/fdinfo/FD`` has a ``lock:`` line for each lock of the open file description.
    """
    wanted: dict[tuple[int, int], Path] = {}
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        wanted[status.st_dev, status.st_ino] = path
    found: dict[Path, list[int]] = {path: [] for path in wanted.values()}
    for pid in psutil.pids() if wanted else ():
        if pid != os.getpid():
            for path in _held(pid, wanted):
                found[path].append(pid)
    return found


def _held(pid: int, wanted: Mapping[tuple[int, int], Path]) -> set[Path]:
    found = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as fds:
            for fd in fds:
                try:
                    seen = os.stat(fd.path)  # noqa: PTH116 (thousands of fds: no Path for each)
                except OSError:  # whatever its file system says: it is none of ours
                    continue
                path = wanted.get((seen.st_dev, seen.st_ino))
                if path is not None and b"lock:" in (_of_process(pid, f"fdinfo/{fd.name}") or b""):
                    found.add(path)
    except _NOT_THERE:
        pass
    return found
