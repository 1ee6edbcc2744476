"""A file that is written is the old one or the new one, whatever fails and whenever we die."""

import asyncio
import errno
import io
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashes import crash_points

from waguard.errors import DiskFull, StorageFailed
from waguard.system import files
from waguard.system.files import PARTIAL, write_atomically
from waguard.system.threads import in_thread

OLD, NEW = b"old" * 50_000, b"new" * 60_000


def test_a_file_is_made_and_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (OLD, NEW, b""):
        write_atomically(path, data)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = set()
    points = 0
    write_atomically(path, OLD)
    for _ in crash_points(lambda: write_atomically(path, NEW)):
        points += 1
        data = path.read_bytes()
        assert data in {OLD, NEW}
        seen.add(data)
        leftovers = [entry for entry in tmp_path.iterdir() if entry != path]
        assert all(entry.name.endswith(PARTIAL) for entry in leftovers)
        write_atomically(path, OLD)  # what a crash left is not in the way
    assert seen == {OLD, NEW}
    assert points > 10


def test_it_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(fd: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink().name}")
        fsync(fd)

    def note_replace(self: Path, target: Path) -> Path:
        steps.append(f"rename {self.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_atomically(tmp_path / "file", NEW)
    partial = steps[0].removeprefix("sync ")
    assert partial.endswith(PARTIAL)
    assert steps == [f"sync {partial}", f"rename {partial}", f"sync {tmp_path.name}"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EIO, StorageFailed),
        (errno.EROFS, StorageFailed),
    ],
)
@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_refused_step_leaves_the_old_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, kind: type[Exception]
) -> None:
    path = tmp_path / "file"
    write_atomically(path, OLD)

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    class Full(io.BufferedWriter):
        write = refuse  # type: ignore[assignment]  # it only refuses

    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr(os, "fdopen", lambda fd, _mode: Full(io.FileIO(fd, "wb")))
        else:
            patch.setattr(Path if step == "replace" else os, step, refuse)
        with pytest.raises(kind) as caught:
            write_atomically(path, NEW)
    assert str(path) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_not_there_or_no_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for parent in ("missing", "plain"):
        with pytest.raises(StorageFailed, match=rf"Cannot write .*{parent}/file"):
            write_atomically(tmp_path / parent / "file", NEW)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_the_old_stands(tiny_disk: Path) -> None:
    path = tiny_disk / "file"
    write_atomically(path, b"old")
    with pytest.raises(DiskFull, match="No space left on device"):
        write_atomically(path, NEW)
    assert path.read_bytes() == b"old"
    assert list(tiny_disk.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "file"
    path.symlink_to(victim)
    write_atomically(path, NEW)
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_writers_at_the_same_time_leave_one_of_them_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([letter]) * 100_000 for letter in b"abcdefgh"]
    threads = [threading.Thread(target=write_atomically, args=(path, data)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    """Nothing goes on behind the back of whoever cancelled."""
    entered, leave = threading.Event(), threading.Event()
    ended = False

    def work() -> None:
        nonlocal ended
        entered.set()
        leave.wait(10)
        ended = True

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_what_a_thread_raises_arrives() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


def test_saying_keeps_other_errors() -> None:
    with pytest.raises(KeyError), files.as_storage_error("do it"):
        raise KeyError
