"""The files that pass between one client and its browser: what it uploads, what its page downloads, and the folders of both."""

from collections.abc import Callable

from waguard.admission.room import Room
from waguard.browser.launch import Browser
from waguard.core.actor import Actor
from waguard.sandbox import Folders
from waguard.sandbox.reaper import LaunchRecord
from waguard.session.downloads import Downloads
from waguard.session.instance import Instance
from waguard.session.shelf import Places
from waguard.session.uploads import Uploads
from waguard.system.threads import Kind, in_thread


class Transfer:
    def __init__(self, instance: Instance, room: Room, owner: Callable[[], Actor | None]) -> None:
        """``owner``: of the page, who wants what it downloads."""
        resources = instance.resources
        self._sandbox = resources.sandbox
        self._places = Places(resources.config.sessions.dir, instance.code, resources.profiles.user)
        self.uploads = Uploads(instance, self._places, room.find_disk)
        self.downloads = Downloads(instance, self._places, room.disk_lack, owner)

    async def prepare(self) -> Folders:
        """Before a browser: what an earlier one has not finished is gone. Raises `StorageFailed`, `DiskFull`."""
        await in_thread(self._places.make)
        await in_thread(self._places.drop_unfinished, kind=Kind.COPIES)
        return self._places.folders

    async def begin(self, browser: Browser, launch: LaunchRecord) -> None:
        """A browser answers, of this daemon's or of an earlier one's. Raises `StorageFailed`."""
        self.downloads.begin(browser, launch.downloads)
        await self.uploads.look(launch.uploads)

    async def clear(self) -> int | None:
        """See `Places.clear`."""
        cleared = await in_thread(self._places.clear, kind=Kind.COPIES)
        await self.uploads.look("")
        return cleared
