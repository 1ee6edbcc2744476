"""Puts what ``waguard install`` installs into the package; all the rest is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SCHEMA = Path("docs/reference/config.schema.json")


class BuildWithUnits(build_py):
    def run(self) -> None:
        super().run()
        shipped = Path(self.build_lib, "waguard", "shipped")
        shipped.mkdir(parents=True, exist_ok=True)
        for file in (*Path("systemd").iterdir(), Path("config.toml"), SCHEMA):
            shutil.copy(file, shipped)


setup(cmdclass={"build_py": BuildWithUnits})
