"""What a client uploads for its browser: stored by the daemon alone, and opened by the browser alone, by the path that is answered here.

A path that a client names is looked up and never opened: what is not among `Uploads.paths` is none (`waguard.core.relay.checks`).
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from waguard.core.file_name import file_name
from waguard.core.relay.checks import UPLOADS
from waguard.core.shown import UploadView
from waguard.errors import BodyTooLarge, NoSuchFile, NoUploads, UploadsFull
from waguard.session.instance import Instance
from waguard.session.shelf import Kept, Places
from waguard.system.host import MB
from waguard.system.threads import Kind, in_thread, in_threads

_MOST_FILES = 200
_ARRIVING = 4
"""At a time."""


class Uploads:
    def __init__(
        self, instance: Instance, places: Places, find_disk: Callable[[int, int], Awaitable[None]]
    ) -> None:
        self._instance = instance
        self._places = places
        self._shelf = places.uploads
        self._config = instance.resources.config.relay
        self._find_disk = find_disk
        self._folder = ""
        """Where the browser that runs, or the next one, finds them."""
        self.paths: dict[str, str] = {}
        """What clients call each, and where the browser finds it."""
        self._arriving: dict[str, int] = {}
        """Bytes of those that are on their way, by id."""
        self._kept: Sequence[Kept] = ()
        """As of the last look."""
        self._looking = asyncio.Lock()

    async def look(self, folder: str | None = None) -> Sequence[Kept]:
        """What there is. ``folder``: where the browser finds it from here; empty: it cannot. Raises `StorageFailed`."""
        async with self._looking:  # the last look is the one that counts
            if folder is not None:
                self._folder = folder
            self._kept = kept = await in_thread(self._shelf.all)
            self.paths.clear()
            if self._folder:
                self.paths.update((_path(one), f"{self._folder}/{one.id}/{one.name}") for one in kept)
        return kept

    async def all(self) -> Sequence[UploadView]:
        return [self._view(one) for one in await self.look()]

    async def store(self, name: str, pieces: AsyncIterator[bytes], size: int | None) -> UploadView:
        """Take one in as it comes; ``size``: what it will have, if that is known.

        Raises `NoUploads`, `BodyTooLarge`, `UploadsFull`, `DiskFull`, `StorageFailed`.
        """
        self._check_reachable()
        most = self._config.upload_mb * MB
        if (size or 0) > most:
            raise self._too_large()
        await self._find_disk(most if size is None else size, 1)
        await in_thread(self._places.make)
        await self.look()
        new = secrets.token_hex(8)
        name = file_name(name)
        with self._counted(new):
            self._find_room(size or 0)
            async with in_threads(self._shelf.making(new), kind=Kind.COPIES) as room:
                file = await in_thread(self._shelf.create, room / name)
                try:
                    async for piece in pieces:
                        self._arriving[new] += len(piece)
                        if self._arriving[new] > most:
                            raise self._too_large()
                        self._find_room(0)
                        await in_thread(file.write, piece, kind=Kind.COPIES)
                    await in_thread(_sync, file, kind=Kind.COPIES)
                finally:
                    await in_thread(file.close, kind=Kind.COPIES)
                await in_thread(self._shelf.complete, room, new)
            stored = next(one for one in await self.look() if one.id == new)
        self._instance.publish("upload.stored", file=new, bytes=stored.bytes)
        return self._view(stored)

    async def drop(self, name: str, why: str) -> Kept:
        """Raises `NoSuchFile`, `StorageFailed`."""
        found = next((one for one in await self.look() if one.id == name), None)
        if found is None or not await in_thread(self._shelf.drop, name, kind=Kind.COPIES):
            raise NoSuchFile(f"{self._instance.code} has no uploaded file {name[:80]!r}.")
        await self.look()
        self._instance.publish("upload.deleted", file=name, why=why)
        return found

    def _check_reachable(self) -> None:
        """Raises `NoUploads`."""
        if not self._config.uploads_mb:
            raise NoUploads("Uploads are denied: relay.uploads_mb is 0.", hint="Set it in config.toml.")
        launch = self._instance.record.launch
        if self._instance.browser is not None and launch is not None and not launch.uploads:
            code = self._instance.code
            raise NoUploads(
                f"The browser of {code} was started by an earlier version of waguard, and sees no uploads.",
                hint=f"Start it again: waguard restart {code}",
            )

    def _find_room(self, more: int) -> None:
        """Raises `UploadsFull`."""
        most, taken = (
            self._config.uploads_mb * MB,
            sum(one.bytes for one in self._kept) + sum(self._arriving.values()),
        )
        if taken + more > most:
            raise UploadsFull(
                f"The uploads of {self._instance.code} would take more than relay.uploads_mb = {most // MB} MiB.",
                hint=f"Delete some: GET /v1/sessions/{self._instance.code}/uploads lists them. They go by themselves after "
                f"relay.files_keep_hours = {self._config.files_keep_hours:g}.",
            )
        if len(self._kept) + len(self._arriving) > _MOST_FILES or len(self._arriving) > _ARRIVING:
            raise UploadsFull(
                f"{self._instance.code} has {len(self._kept)} uploaded files, and {len(self._arriving)} are on their way: "
                f"{_MOST_FILES} and {_ARRIVING} are the most.",
                hint="Delete some, or send one after the other.",
            )

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        self._arriving[name] = 0
        try:
            yield
        finally:
            del self._arriving[name]

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The file has more than relay.upload_mb = {self._config.upload_mb} MiB.",
            hint="Send less, or raise relay.upload_mb.",
        )

    def _view(self, kept: Kept) -> UploadView:
        until = kept.since + self._config.files_keep_hours * 3600
        return UploadView(kept.id, kept.name, _path(kept), kept.bytes, round(until, 3))


def _path(kept: Kept) -> str:
    return f"{UPLOADS}/{kept.id}/{kept.name}"


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
