"""Packages of npm for tests, without the browsers that they would download."""

import fcntl
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm is installed")

DRIVERS = ("puppeteer-core@25", "puppeteer24@npm:puppeteer-core@24", "playwright-core@1")
"""What drives pages, at once: each call of npm takes seconds."""
PLACE = Path(sys.prefix) / "npm"
"""Beside Python's packages: the next run of the tests downloads nothing, and `make clean` takes them away."""
COMMAND = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix")


@cache
def installed(*packages: str) -> Path:
    """Their `node_modules`."""
    place = PLACE / "+".join(packages).replace("/", "-")
    PLACE.mkdir(exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests in another process may want the same
        if not place.exists():
            coming = Path(mkdtemp(dir=PLACE))
            try:
                subprocess.run([*COMMAND, coming, *packages], check=True, capture_output=True, timeout=90)
                coming.rename(place)
            except (subprocess.SubprocessError, OSError) as error:
                shutil.rmtree(coming)
                pytest.skip(f"{', '.join(packages)} cannot be had from npm: {error}")
    return place / "node_modules"
