"""A tree of files as it is, to be held against what it was."""

from pathlib import Path


def tree(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def snapshot(root: Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(root.rglob("*")):
        if path.name.startswith((".history.db", ".looked", ".audit.", ".webhooks.")):
            continue  # what was asked before is written down a little later, and so is the first sweep
        seen = path.lstat()
        found[str(path)] = (seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns)
    return found
