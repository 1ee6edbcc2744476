"""A directory that is made anew is another one, whatever number it gets."""

import os
import shutil
from pathlib import Path

import pytest

from waguard.system import birth


def identity(directory: Path) -> str:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        return birth.identity(fd)
    finally:
        os.close(fd)


def test_what_is_made_anew_is_another_one_and_what_is_written_into_is_not(tmp_path: Path) -> None:
    place, seen = tmp_path / "database", set()
    for round_ in range(20):
        place.mkdir()
        made = identity(place)
        (place / "000003.log").write_bytes(b"grown")
        (place / "000003.log").rename(place / "000004.log")
        assert identity(place) == made
        seen.add(made)
        assert len(seen) == round_ + 1
        shutil.rmtree(place)
        (clock := tmp_path / "clock").write_bytes(
            b""
        )  # file systems tell the time in steps of some milliseconds
        step = clock.stat().st_mtime_ns
        while clock.stat().st_mtime_ns == step:
            clock.write_bytes(b"")


def test_what_is_not_open_is_an_error() -> None:
    fd = os.open("/", os.O_PATH)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        birth.identity(fd)
