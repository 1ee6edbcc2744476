"""What is done with a client's profile while nobody launches it: it is copied, also under a running browser, sealed and pruned."""

import threading
import time
from functools import partial
from pathlib import Path

from waguard.core.model import Stage
from waguard.errors import SnapshotFailed, SnapshotRefused, WaguardError
from waguard.session.instance import Instance
from waguard.session.lease import PageLease
from waguard.session.login import ClientLogin
from waguard.snapshots.packing import About
from waguard.system.deadline import within
from waguard.system.threads import Kind, in_thread


class Copies:
    def __init__(self, instance: Instance, login: ClientLogin, lease: PageLease) -> None:
        self._instance = instance
        self._login = login
        self._lease = lease

    async def copy(self, into: Path, reason: str) -> About:
        """Copy the login's part of the profile into an empty directory, from a running browser too, which is held still for
        milliseconds. Raises `SnapshotFailed`, `SnapshotRefused`, `StorageFailed`, `ProfileLocked`, `DiskFull`.
        """
        if why := self._login.doubt:
            raise SnapshotRefused(f"The profile is damaged: {why}.", reason="damaged")
        self._instance.check_tenure()
        async with self._instance.using:
            browser = self._instance.browser
            # Whoever has the lock now has it for a launch: it is not ours to use, nor to give back.
            if (browser is None and self._instance.custody.locked) or (
                browser is not None and not browser.connected
            ):
                raise SnapshotFailed(
                    f"{self._instance.code} is just starting or stopping.", hint="Try again in a moment."
                )
            most_s = self._instance.resources.config.deadlines.snapshot
            held_still = (
                None if browser is None else partial(self._lease.still, browser, "a snapshot", most_s)
            )
            copied = partial(
                self._instance.custody.copy,
                into,
                reason,
                has_login=self._login.held,
                held_still=held_still,
            )
            return await in_thread(copied, kind=Kind.COPIES)

    async def prune(self, limit_bytes: int) -> int:
        """Drop the caches of a profile that no browser uses, if they take more. Raises `StorageFailed`, `ProfileLocked`."""
        self._instance.check_tenure()
        async with self._instance.using:
            return (
                0
                if self._instance.in_use
                else await in_thread(self._instance.custody.prune, limit_bytes, kind=Kind.COPIES)
            )

    async def seal(self) -> None:
        """Leave only the sealed form of a profile that no browser uses. What goes wrong is told, and tried again later."""
        if self._instance.resources.config.profile.at_rest != "sealed" or self._instance.browser is not None:
            return
        stop, began = threading.Event(), time.monotonic()
        try:
            self._instance.check_tenure()
            deadline = self._instance.resources.config.deadlines.snapshot
            async with within(Stage.SNAPSHOT, deadline, "sealing the profile"), self._instance.using:
                work = partial(self._instance.custody.seal, stop, has_login=self._login.held)
                sealed = not self._instance.in_use and await in_thread(work, stop=stop, kind=Kind.COPIES)
        except WaguardError as error:
            self._instance.publish("profile.seal_failed", code=error.code, error=error.message)
        else:
            if sealed:
                self._instance.publish(
                    "profile.sealed", duration_ms=round((time.monotonic() - began) * 1000, 1)
                )
