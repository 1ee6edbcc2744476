"""``waguard install`` where it is not as it should be: refused before anything is done, and nothing lost on the way out."""

import subprocess
import sys
import tarfile
from pathlib import Path

from test_packaging import ROOT

from waguard.cli import install


def test_a_source_distribution_has_what_the_package_is_built_from(tmp_path: Path) -> None:
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    source = tmp_path / "source"
    for name in (
        "waguard/__init__.py",
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "config.toml",
        "README.md",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "systemd").mkdir()
    for unit in install.FILES:
        (source / "systemd" / unit).write_bytes((ROOT / "systemd" / unit).read_bytes())
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=60)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"config.toml", "setup.py", *(f"systemd/{unit}" for unit in install.FILES)} <= names
