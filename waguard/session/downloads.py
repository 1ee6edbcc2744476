"""What a page downloads: into a folder of the session's, as much as `relay.downloads_mb` allows, and then out of its browser's reach.

The page names what comes and says how much it is, so neither is believed: a file is called by the browser's own id until it has come
whole, and what is on disk is what counts.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

from waguard.browser.launch import Browser
from waguard.core.actor import Actor, acting
from waguard.core.shown import DownloadView
from waguard.errors import NoSuchFile, PageFailed, StorageError
from waguard.session.instance import Instance
from waguard.session.shelf import Kept, Places
from waguard.system.files import Below
from waguard.system.host import MB
from waguard.system.repeats import Repeats
from waguard.system.tasks import background, forget
from waguard.system.threads import Kind, in_thread, working_for

_MOST_FILES = 200
_AT_A_TIME = 50
"""With more none is begun for `_PAUSE_S`."""
_PAUSE_S = 60.0
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REFUSALS = 5
"""So many are told in ten seconds."""
_MOST_REFUSED = 1000
_NAME = 512
"""Characters of a name that are kept."""


class Downloads:
    def __init__(
        self,
        instance: Instance,
        places: Places,
        disk_lack: Callable[[], Awaitable[str]],
        owner: Callable[[], Actor | None],
    ) -> None:
        self._instance = instance
        self._places = places
        self._shelf = places.received
        self._config = instance.resources.config.relay
        self._most = self._config.downloads_mb * MB
        self._disk_lack = disk_lack
        self._owner = owner
        self._browser: Browser | None = None
        self._folder = ""
        self._coming: dict[str, int] = {}
        """Bytes of those that are under way, by id."""
        self._names: dict[str, str] = {}
        self._refused: dict[str, None] = {}
        """Ids of those whose end is still to be told: a small one may have come whole before it is cancelled."""
        self._refusals = Repeats(_REFUSALS)
        self._work: list[Callable[[], Awaitable[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False

    # --- the browser

    def begin(self, browser: Browser, folder: str) -> None:
        """A browser answers: it downloads into ``folder``, or nothing if that is empty or the configuration says so. Waits for nothing."""
        self._end_pause()
        self._browser, self._folder = browser, folder
        self._coming.clear()
        self._names.clear()
        self._refused.clear()
        if (devtools := browser.devtools) is None:
            return
        if self._allowed:
            devtools.browser.observe("Browser.downloadWillBegin", self._begun)
            devtools.browser.observe("Browser.downloadProgress", self._got_on)
        self._say(allow=self._allowed)

    @property
    def _allowed(self) -> bool:
        return bool(self._folder and self._most)

    def _say(self, *, allow: bool) -> None:
        # A full Chromium would download by itself, into its home.
        self._send(
            "Browser.setDownloadBehavior",
            {"behavior": "allowAndName", "downloadPath": self._folder, "eventsEnabled": True}
            if allow
            else {"behavior": "deny"},
        )

    def _send(self, method: str, params: Mapping[str, Any]) -> None:
        if self._browser is not None and self._browser.devtools is not None:
            try:
                forget(self._browser.devtools.browser.send(method, params))
            except PageFailed:
                return  # it has gone, and its downloads with it

    # --- what the browser tells

    def _begun(self, params: Any) -> None:
        match params:
            case {"guid": str(guid), "suggestedFilename": str(name)} if _GUID.fullmatch(guid):
                self._names[guid] = name[:_NAME]
                self._comes(guid, 0)

    def _got_on(self, params: Any) -> None:
        match params:
            case {"guid": str(guid), "state": "inProgress", "receivedBytes": int() | float() as got} if (
                _GUID.fullmatch(guid)
            ):
                expected = params.get("totalBytes")
                self._comes(guid, max(int(got), int(expected) if isinstance(expected, int | float) else 0))
            case {"guid": str(guid), "state": "completed"} if _GUID.fullmatch(guid):
                self._later(partial(self._delete if guid in self._refused else self._take, guid))
                self._refused.pop(guid, None)
            case {"guid": str(guid)}:
                self._forget(guid)
                self._refused.pop(guid, None)

    def _comes(self, guid: str, size: int) -> None:
        """One whose beginning nobody has told of, as of an address that is too long, or to an earlier daemon, counts as well."""
        if guid in self._refused:
            return
        new = guid not in self._coming
        self._coming[guid] = size
        if new and len(self._coming) > _AT_A_TIME:
            self._refuse(guid, f"more than {_AT_A_TIME} at a time")
            self._take_a_pause()
        elif sum(self._coming.values()) > self._most:
            self._refuse(guid, f"more than relay.downloads_mb = {self._config.downloads_mb} MiB")
        elif not self._work:
            self._later(self._see_room)

    def _forget(self, guid: str) -> None:
        self._coming.pop(guid, None)
        self._names.pop(guid, None)

    def _refuse(self, guid: str, why: str) -> None:
        self._forget(guid)
        self._refused[guid] = None
        if len(self._refused) > _MOST_REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._send("Browser.cancelDownload", {"guid": guid})
        if (left_out := self._refusals.left_out(why)) is not None:
            self._publish("download.refused", why=why, left_out=left_out)

    def _take_a_pause(self) -> None:
        if self._pause is None and not self._closed:
            self._say(allow=False)
            self._pause = asyncio.get_running_loop().call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._say(allow=self._allowed)

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    # --- what takes time

    def _later(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._closed:
            return
        self._work.append(work)
        if self._task is None or self._task.done():
            name = f"{self._instance.code}:downloads"
            self._task = background(self._do, name, self._instance.publish, again=True)

    async def _do(self) -> None:
        with working_for(self._instance.code):
            while self._work:
                try:
                    await self._work[0]()
                finally:
                    self._work.pop(0)

    async def _see_room(self) -> None:
        if lack := await self._disk_lack():
            for guid in [*self._coming]:
                self._refuse(guid, lack)
        else:
            await self._let_go()

    async def _let_go(self) -> None:
        """Of what has come the oldest goes, as long as it is too much with what comes."""
        kept = list(await self._all())
        while kept and (
            sum(one.bytes for one in kept) + sum(self._coming.values()) > self._most
            or len(kept) > _MOST_FILES
        ):
            await self._drop(kept.pop(0).id, "room is needed")

    async def _take(self, guid: str) -> None:
        name = self._names.get(guid, "")
        self._forget(guid)
        source = Below(self._places.folders.downloads, guid)
        try:
            size = await in_thread(self._shelf.take, source, guid, name, kind=Kind.COPIES)
        except StorageError as error:
            self._publish("download.refused", why=error.message)
            await self._delete(guid)
            return
        if size > self._most:  # more than the browser has told
            await self._drop(guid, "it is too large")
            return
        self._publish("download.done", file=guid, bytes=size)
        await self._let_go()

    async def _delete(self, guid: str) -> None:
        await in_thread(self._places.drop_unkept, guid, kind=Kind.COPIES)

    async def close(self) -> None:
        """Call off what is under way, and begin nothing any more."""
        self._closed = True
        self._end_pause()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # --- for whoever asks

    @property
    def most_mb(self) -> int:
        return self._config.downloads_mb

    async def all(self) -> Sequence[DownloadView]:
        """The oldest first. Raises `StorageFailed`."""
        keep_s = self._config.files_keep_hours * 3600
        return [
            DownloadView(one.id, one.name, one.bytes, round(one.since, 3), round(one.since + keep_s, 3))
            for one in await self._all()
        ]

    async def _all(self) -> Sequence[Kept]:
        return await in_thread(self._shelf.all)

    async def open(self, name: str) -> tuple[Kept, BinaryIO]:
        """Raises `NoSuchFile`, `StorageFailed`."""
        found = await self._find(name)
        return found, await in_thread(self._shelf.open, found)

    async def drop(self, name: str, why: str) -> Kept:
        """Raises `NoSuchFile`, `StorageFailed`."""
        found = await self._find(name)
        await self._drop(name, why)
        return found

    async def _find(self, name: str) -> Kept:
        found = next((one for one in await self._all() if one.id == name), None)
        if found is None:
            raise NoSuchFile(f"{self._instance.code} has no downloaded file {name[:80]!r}.")
        return found

    async def _drop(self, name: str, why: str) -> None:
        if await in_thread(self._shelf.drop, name, kind=Kind.COPIES):
            self._instance.publish("download.deleted", file=name, why=why)

    def _publish(self, name: str, **fields: Any) -> None:
        """Whose page it is, wants it."""
        if (owner := self._owner()) is None:
            self._instance.publish(name, **fields)
        else:
            with acting(owner):
                self._instance.publish(name, **fields)
