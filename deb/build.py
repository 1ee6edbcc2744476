#!/usr/bin/env python3
"""Build a Debian package into dist/: the program with its dependencies for Debian's own Python, units, maintainer scripts.

The same commit, lock and machine give the same file, byte for byte.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "deb"
PYTHON = "/usr/bin/python3"
PROGRAM = Path("usr/lib/waguard")
PLACES = {
    "waguard.service": "usr/lib/systemd/system/waguard.service",
    "waguard.socket": "usr/lib/systemd/system/waguard.socket",
    "waguard.slice": "usr/lib/systemd/system/waguard.slice",
    "waguard.sysusers": "usr/lib/sysusers.d/waguard.conf",
    "waguard.tmpfiles": "usr/lib/tmpfiles.d/waguard.conf",
}
SCHEMA = "docs/reference/config.schema.json"
DOCS = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.*")),
)
VEX = ".vex/waguard.openvex.json"
"""What scanners are told of the advisories of what is packed beside the program."""
NOT_NEEDED = ("bin", "share", "LICENSE", "README.md")
"""What packages leave beside the modules, of no use there."""
NOT_NEEDED_ANYWHERE = ("tests", "*.pyx", "*.pxd", "*.c", "*.h", "RECORD", "INSTALLER", "REQUESTED")


class Failed(Exception):
    """What went wrong, for people."""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=ROOT / "dist", help="the directory that it is put into")
    given = options.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        with tempfile.TemporaryDirectory(prefix="waguard-deb-") as room:
            package = build(Path(room), project, given.out)
    except Failed as failure:
        print(f"deb: {failure}", file=sys.stderr)
        return 1
    print(f"{package}: {package.stat().st_size / 1e6:.1f} MB")
    return 0


def build(room: Path, project: dict[str, object], out: Path) -> Path:
    tree = room / "tree"
    program = tree / PROGRAM
    _dependencies(room, program, project["dependencies"])
    _program(room, program)
    for pattern in NOT_NEEDED_ANYWHERE:
        for path in [*program.rglob(pattern)]:
            _remove(path)
    _strip(program)
    wrapper = tree / "usr/bin/waguard"
    wrapper.parent.mkdir(parents=True)
    shutil.copyfile(HERE / "waguard", wrapper)
    for name, place in PLACES.items():
        _copy(ROOT / "systemd" / name, tree / place)
    _copy(ROOT / SCHEMA, tree / "usr/share/waguard" / Path(SCHEMA).name)
    time = os.environ.get("SOURCE_DATE_EPOCH") or _committed()
    program_of = {"PYTHONPATH": str(program), "PYTHONDONTWRITEBYTECODE": "1", "SOURCE_DATE_EPOCH": time}
    _run([PYTHON, "scripts/manual.py", str(tree / "usr/share")], **program_of)
    docs = tree / "usr/share/doc/waguard"
    for name in DOCS:
        _copy(ROOT / name, docs / name)
    _copy(ROOT / VEX, docs / Path(VEX).name)
    _copy(HERE / "copyright", docs / "copyright")
    _describe(tree, program, str(project["version"]))
    return _pack(tree, out)


def _dependencies(room: Path, program: Path, wanted: object) -> None:
    assert isinstance(wanted, list)  # noqa: S101 (tests/test_packaging.py)
    pins = room / "pins"
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins.write_text(
        "".join(line for line in lock.splitlines(keepends=True) if "==" in line), encoding="utf-8"
    )
    command = [sys.executable, "-m", "pip", "--python", PYTHON, "--disable-pip-version-check", "--no-input"]
    command += [
        "install",
        "--quiet",
        "--no-compile",
        "--prefer-binary",  # websockets 10 of pyppeteer has none for Python 3.12 and later
        "--root-user-action",
        "ignore",
    ]
    _run([*command, "--target", str(program), "--constraint", str(pins), *wanted])
    for name in NOT_NEEDED:
        _remove(program / name)


def _program(room: Path, program: Path) -> None:
    built = room / "built"
    build = ["-q", "build", "--build-base", str(room / "base"), "--build-lib", str(built)]
    _run([sys.executable, "setup.py", *build])
    shutil.copytree(built / "waguard", program / "waguard")


def _strip(program: Path) -> None:
    """Without symbols that nobody needs a third is left. Where there is no strip (binutils), the package is larger."""
    if shutil.which("strip"):
        for library in sorted([*program.rglob("*.so"), *program.rglob("*.so.*")]):
            _run(["strip", "--strip-unneeded", str(library)])


def _describe(tree: Path, program: Path, version: str) -> None:
    """Control file, maintainer scripts and checksums."""
    control = tree / "DEBIAN"
    control.mkdir()
    major, minor = map(int, _run([PYTHON, "-c", "import sys; print(*sys.version_info[:2])"]).split())
    files = sorted(path for path in tree.rglob("*") if path.is_file() and control not in path.parents)
    text = (HERE / "control").read_text(encoding="utf-8")
    values = {
        "version": version,
        "architecture": _run(["dpkg", "--print-architecture"]).strip(),
        # Compiled dependencies fit one minor version of Python.
        "python": f"{major}.{minor}",
        "next_python": f"{major}.{minor + 1}",
        "libc": ".".join(map(str, max(_libcs(program)))),
        "size": str(sum(path.stat().st_size for path in files) // 1024),
    }
    (control / "control").write_text(text.format(**values), encoding="utf-8")
    for script in ("preinst", "postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / script, control / script)
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in files
    ]
    (control / "md5sums").write_text("".join(sums), encoding="utf-8")


def _libcs(program: Path) -> Iterator[tuple[int, int]]:
    """The glibc that each dependency's wheel says it needs at least: PEP 600, and its names of before."""
    older = {"1": (2, 5), "2010": (2, 12), "2014": (2, 17)}
    yield 2, 17
    for wheel in program.glob("*.dist-info/WHEEL"):
        tags = re.findall(r"manylinux(\d+|_\d+_\d+)_", wheel.read_text(encoding="utf-8"))
        needs = [older[tag] if tag in older else tuple(map(int, tag.strip("_").split("_"))) for tag in tags]
        if needs:
            yield min((major, minor) for major, minor in needs)


def _pack(tree: Path, out: Path) -> Path:
    time = os.environ.get("SOURCE_DATE_EPOCH") or _committed()
    for path in [tree, *tree.rglob("*")]:
        program = path.parent.name == "bin" or (
            path.parent.name == "DEBIAN" and path.suffix == "" and _script(path)
        )
        path.chmod(0o755 if path.is_dir() or program else 0o644)
        os.utime(path, (int(time), int(time)))
    out.mkdir(parents=True, exist_ok=True)
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(out)]
    said = _run(command, SOURCE_DATE_EPOCH=time)
    found = re.search(r"'([^']+\.deb)'", said)
    if found is None:
        raise Failed(f"dpkg-deb did not say what it has made: {said}")
    return Path(found[1])


def _committed() -> str:
    """When, in seconds; of sources without their history, the time of one that changes with each version."""
    if (ROOT / ".git").exists():
        return _run(["git", "log", "-1", "--format=%ct"]).strip()
    return str(int((ROOT / "CHANGELOG.md").stat().st_mtime))


def _script(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(b"#!")


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _run(command: Sequence[str], **environment: str) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "LC_ALL": "C", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise Failed(f"there is no {command[0]}") from None
    if done.returncode != 0:
        raise Failed(
            f"{' '.join(command[:4])} ... could not do it. What it said:\n{done.stderr or done.stdout}"
        )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
