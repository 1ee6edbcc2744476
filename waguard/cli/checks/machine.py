"""What waguard needs of the machine: Python, fonts, memory, room on the disk."""

import os
import platform
import shutil
import sys
from pathlib import Path

from waguard.cli.checks import Grade, Seen
from waguard.config.sections import Config
from waguard.system import host

_FONTS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
_SHM = Path("/dev/shm")  # noqa: S108 (looked at, nothing is put there)
_SHM_MB = 256
_OLDEST_PYTHON = (3, 11)


def python() -> Seen:
    version = platform.python_version()
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Seen(f"{version} is older than 3.11", Grade.PROBLEM, "apt-get install python3")
    return Seen(version)


def fonts() -> Seen:
    files = (path for place in _FONTS for path in place.rglob("*"))
    found = next((path for path in files if path.suffix in {".ttf", ".otf", ".ttc", ".pfb"}), None)
    if found is None:
        return Seen(
            "none: text on the page would be boxes", Grade.WARNING, "apt-get install fonts-liberation"
        )
    return Seen(f"{found.name} and perhaps more")


def shared_memory() -> Seen:
    free = shutil.disk_usage(_SHM).free // host.MB if os.access(_SHM, os.W_OK | os.X_OK) else 0
    if free < _SHM_MB:
        return Seen(
            f"{_SHM} has {free} MiB: pages may crash where bubblewrap does not bring its own",
            Grade.WARNING,
            f"mount -o remount,size=1G {_SHM}, or of a container: --shm-size=1g",
        )
    return Seen(f"{_SHM} has {free} MiB")


def memory(config: Config) -> Seen:
    limits = config.limits
    free = host.available_memory_mb()
    room = (free - limits.reserve_memory_mb) // max(1, limits.session_memory_mb)
    if room < 1:
        return Seen(
            f"{free} MiB free: no room for a session (limits.session_memory_mb above limits.reserve_memory_mb)",
            Grade.PROBLEM,
            "Free some, or lower limits.session_memory_mb or limits.reserve_memory_mb",
        )
    return Seen(f"{free} MiB free, room for {min(room, limits.max_sessions)} sessions")


def disk(config: Config) -> Seen:
    free, reserve = host.free_disk_mb(config.sessions.dir.absolute()), config.limits.reserve_disk_mb
    if free < reserve:
        return Seen(
            f"{free} MiB free below {config.sessions.dir.absolute()}, less than limits.reserve_disk_mb = {reserve}",
            Grade.PROBLEM,
            f"See what takes the space: du -xh --max-depth=2 {config.sessions.dir.absolute()} | sort -h | tail",
        )
    return Seen(f"{free} MiB free below {config.sessions.dir.absolute()}")
