"""Symbolic links: each client's profile is found by one, and not every file system has them. Blocking: call from a thread."""

import errno
from pathlib import Path

from waguard.errors import ConfigError
from waguard.system.files import partial, sync_directory

_NO_LINKS = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS})


def look_for_links(root: Path) -> None:
    """Whether a directory is on a file system that has symbolic links. Raises `ConfigError` if not."""
    with partial(root / "link") as link:
        try:
            link.symlink_to("nowhere")
        except OSError as error:
            if error.errno in _NO_LINKS:  # what else is in the way, a full disk say, is told where it matters
                raise _without_links(root, error) from None


def _without_links(root: Path, error: OSError) -> ConfigError:
    """What is said where there are none."""
    return ConfigError(
        f"sessions.dir: the file system of {root} has no symbolic links ({error.strerror}), and each client's profile is found by one.",
        hint="Put sessions.dir on a file system of Linux (ext4, xfs, btrfs, NFS): SMB shares, FAT and some of FUSE have none.",
    )


def point(link: Path, target: Path, root: Path) -> None:
    """Have ``link`` lead to ``target``, whatever it was before. Raises `ConfigError` where ``root`` has none, `OSError`."""
    with partial(link) as beside:
        try:
            beside.symlink_to(target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise _without_links(root, error) from None
        beside.replace(link)
    sync_directory(link.parent)
