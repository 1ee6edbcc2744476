"""How a snapshot is made of what lies in a directory, which is on the profiles' own file system."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from waguard.core.model import ClientCode
from waguard.profile.store import Profiles
from waguard.snapshots.packing import About
from waguard.snapshots.store import Snapshot, Snapshots
from waguard.system import files
from waguard.system.files import as_storage_error
from waguard.system.threads import Kind, in_thread, in_threads


@asynccontextmanager
async def staged(profiles: Profiles, code: ClientCode) -> AsyncIterator[Path]:
    """An empty directory; what is left of it afterwards goes."""
    async with in_threads(files.partial(profiles.staging(code))) as room:
        with as_storage_error(f"create {room}"):
            await in_thread(room.mkdir, 0o700)
        yield room


async def sealed(snapshots: Snapshots, room: Path, about: About, *, counted: bool = True) -> Snapshot:
    """Raises like `Snapshots.take`."""
    stop = threading.Event()
    take = partial(snapshots.take, counted=counted)
    return await in_thread(take, stop, room, about, stop=stop, kind=Kind.COPIES)
