"""The login of a client: whoever sees something of it reports it here, and what its table orders is carried out."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from waguard.browser.launch import Browser
from waguard.core.login import events, orders
from waguard.core.login.events import told
from waguard.core.login.state import ON_DISK, UNSAVED, LoginState, Standing
from waguard.core.login.table import decide, hangs_on_snapshots
from waguard.core.model import Link, Reading, Reason
from waguard.errors import WaguardError
from waguard.profile import leveldb, login_files
from waguard.profile.examiners import Evidence, Report
from waguard.session.instance import Instance
from waguard.session.registry import as_written, login_of
from waguard.snapshots.store import about_of
from waguard.system.threads import in_thread

_LOOK_S = 0.5
"""How often is looked whether a login has reached the disk, in seconds."""


class ClientLogin:
    """Owns the state of the login."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._state = login_of(instance.record)
        self.newest_snapshot = ""
        """As of the last time that somebody looked."""

    @property
    def state(self) -> LoginState:
        return self._state

    @property
    def held(self) -> bool:
        """The client was connected with its profile, and nobody has logged it out since."""
        return self._state.held

    @property
    def on_disk(self) -> bool:
        """Its mark was seen on disk."""
        return self._state.on_record in ON_DISK

    @property
    def unsaved(self) -> bool:
        """It was scanned, and there is no snapshot of it yet."""
        return self._state.on_record in UNSAVED

    @property
    def doubt(self) -> str:
        """Why the kept profile is not used again; empty if it may be."""
        return self._state.why if self._state.standing is Standing.DOUBTED else ""

    async def tell(self, event: events.Event, **more: Any) -> None:
        """Report what has happened; what follows is written down, with ``more`` of the record.

        A page that is connected has what could not be written before written again.
        """
        before = self._state
        self._state, ordered = decide(before, event, time.monotonic())
        try:
            for order in ordered:
                await self._obey(order)
        finally:  # an order that fails leaves the record none the wiser
            if self._state != before or more or isinstance(event, events.PageConnected):
                await self._write(more)

    async def _write(self, more: dict[str, Any]) -> None:
        if (launch := self._instance.record.launch) is not None:
            taken = self._state.taken_at is not None
            databases = self._instance.custody.identities if taken else {}
            now = replace(launch, accepted=launch.accepted or taken, databases=databases)
            if now != launch:
                more["launch"] = now
        await self._instance.save(**as_written(self._state), **more)

    async def _obey(self, order: orders.Order) -> None:
        match order:
            case orders.Hold():
                await self._hold()
            case orders.LetGo():
                await in_thread(self._instance.custody.let_go)
            case orders.MarkRefused(snapshot):
                await self._mark_refused(snapshot)
            case orders.Announce(name, fields):
                self._instance.publish(name, **dict(fields))
            case orders.Note(verdict, what):
                self._instance.memory.check = Report((Evidence("page", verdict, "login", what),))

    async def _hold(self) -> None:
        profile, launch = self._instance.memory.profile, self._instance.record.launch
        if profile is None or launch is None:
            return
        try:
            await in_thread(self._instance.custody.hold, profile, launch.databases)
        except WaguardError as error:
            self._instance.publish("profile.unwitnessed", code=error.code, error=error.message)

    async def _mark_refused(self, snapshot: str) -> None:
        try:
            await in_thread(self._instance.resources.snapshots.mark_refused, self._instance.code, snapshot)
        except WaguardError as error:
            self._instance.publish("snapshot.mark_failed", snapshot=snapshot, error=error.message)

    # --- what the disk says -----------------------------------------------------------------------------

    async def see_mark(self) -> bool:
        """Whether the login's mark is on disk by now; that it was seen is remembered. Raises `StorageFailed`."""
        profile = self._instance.memory.profile
        if not self.held or self.on_disk or profile is None:
            return self.on_disk
        if await in_thread(login_files.has_mark, profile.path, self._instance.origin):
            await self.tell(events.MarkSeen())
        return self.on_disk

    async def settle(self, limit_s: float) -> None:
        """Wait until the login of a client that has just been connected is on disk, ``limit_s`` after that at most.

        Chromium writes localStorage late, and by when cannot be asked: its mark is looked for. Raises `StorageFailed`.
        """
        while (
            self._instance.browser is not None
            and (taken_at := self._state.taken_at) is not None
            and time.monotonic() < taken_at + limit_s
        ):
            if await self.see_mark():
                return
            await asyncio.sleep(_LOOK_S)

    async def find_snapshot(self) -> bool:
        """Look for one that the profile could be restored from; `newest_snapshot` is its id."""
        profile, self.newest_snapshot = self._instance.memory.profile, ""
        if profile is not None and self.held:
            found = await self._candidates(profile.lineage)
            self.newest_snapshot = found[0] if found else ""
        return bool(self.newest_snapshot)

    async def _candidates(self, lineage: str) -> list[str]:
        snapshots, instance = self._instance.resources.snapshots, self._instance
        return [
            one.id for one in await in_thread(snapshots.candidates, instance.code, lineage, instance.origin)
        ]

    # --- what the page says -----------------------------------------------------------------------------

    async def judge(self, reading: Reading) -> Reading | None:
        """What the page tells, with what follows from it for the login; None if that is in doubt.

        The launch is of no use then: the next one goes down the ladder.
        """
        if (browser := self._instance.browser) is None:
            return reading
        kind, damage = told(reading), ""
        if self._state.at_stake and kind is events.PageAsksScan:
            damage = browser.damage or await in_thread(self._instance.custody.wiped)
        elif self._state.at_stake and kind in {events.PageEmpty, events.PageLoggedOut}:
            damage = await in_thread(self._damage_of, browser)
        looked = hangs_on_snapshots(self._state, kind, damage)
        snapshots = await self._snapshots() if looked else frozenset()
        await self.tell(kind(reading.marks, damage, snapshots))
        if self._state.standing is Standing.DOUBTED:
            return None
        if kind is events.PageAsksScan and self._state.at_stake:
            return replace(reading, reason=Reason.UNPAIRED)
        # A page that waits for a passkey, say, has words of its own.
        plain = (reading.link, reading.reason) == (Link.AWAITING_SCAN, None)
        asks_scan = plain or reading.reason is Reason.LOGGED_OUT
        return replace(reading, reason=self._state.ended or reading.reason) if asks_scan else reading

    async def _snapshots(self) -> Collection[str]:
        """Those that the profile could be restored from; what is sealed of it is one."""
        profile = self._instance.memory.profile
        assert profile is not None  # noqa: S101 (a browser uses it)
        found = await self._candidates(profile.lineage)
        sealed = await in_thread(about_of, profile.sealed)
        return frozenset(found) | (
            {profile.sealed.name} if sealed is not None and sealed.login else frozenset()
        )

    def _damage_of(self, browser: Browser) -> str:
        """What the browser, or what it has made anew, tells of a database that was lost."""
        profile, launch = self._instance.memory.profile, self._instance.record.launch
        if damage := browser.damage or self._instance.custody.wiped():
            return damage
        if profile is None or launch is None or self._state.taken_at is not None:
            return ""
        for database in login_files.databases(profile.path, self._instance.origin):
            try:
                if leveldb.made_anew(database, launch.started_at):
                    return f"{database.name} was missing and has been made anew"
            except OSError:
                continue
        return ""
