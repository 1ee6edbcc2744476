"""Packages of npm for tests, without the browsers that they would download."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm is installed")

DRIVERS = ("puppeteer-core@25", "puppeteer24@npm:puppeteer-core@24", "playwright-core@1")
"""What drives pages, at once: each call of npm takes seconds."""


@cache
def installed(*packages: str) -> Path:
    """Their `node_modules`, for as long as the tests run."""
    place = Path(mkdtemp(prefix="npm-"))
    command = (
        "npm",
        "install",
        "--prefix",
        str(place),
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--silent",
    )
    try:
        subprocess.run([*command, *packages], check=True, capture_output=True, timeout=90)
    except (subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(place)
        pytest.skip(f"{', '.join(packages)} cannot be had from npm: {error}")
    return place / "node_modules"
