"""What a daemon does with what an earlier one has left: it goes on with browsers, or ends them, and starts again what was wanted."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from waguard.core.actor import Actor, ActorKind, acting
from waguard.core.model import Alert, ClientCode, Process, Wanted, client_code
from waguard.core.session import events
from waguard.errors import (
    InvalidClientCode,
    LimitReached,
    ProfileNotFound,
    RecordCorrupt,
    StorageFailed,
    WaguardError,
)
from waguard.session import handover
from waguard.session.instance import Instance
from waguard.session.pipes import kept_launch, kept_names
from waguard.session.registry import Record
from waguard.session.resources import Services
from waguard.session.sessions import Sessions
from waguard.session.task import Session
from waguard.system.threads import Timing, in_thread, working_for

READ_LATER = "What runs of this client is left alone. When the file can be read: systemctl reload waguard, or restart the daemon."
_READS, _READ_AGAIN_S = 3, 0.3
_TOLD_BY_THEN_S = 1.0
"""After a call should have been reported, it is."""
_ON_ITS_WAY = frozenset({Process.PREPARING, Process.STARTING})


class Startup:
    def __init__(self, services: Services, sessions: Sessions) -> None:
        self._services = services
        self._sessions = sessions
        self._resources = services.resources
        self._config = services.resources.config
        self._late: set[asyncio.Task[None]] = set()
        """Of clients that could not be read in time."""

    async def take_over(self) -> None:
        """Read every record, go on with its browser or end it; pipes of nobody are closed."""
        codes = []
        for name in await in_thread(self._resources.profiles.codes):
            try:
                codes.append(client_code(name))
            except InvalidClientCode:
                self._resources.bus.publish("registry.foreign_directory", directory=name)
        lost = await in_thread(self._resources.snapshots.keys_lost)
        self._services.gate.alerts.set(Alert.KEYS_LOST, lost)
        await self._adopt_all(codes)
        # Of no session that we know: its browser ends with its pipe.
        handed = self._resources.manager.handed()
        for name in set(handed).difference(*(kept_names(code, handed) for code in self._sessions.unread)):
            self._resources.bus.publish("daemon.unknown_fd", fd=name)
            self._resources.manager.drop(name)

    async def _adopt_all(self, codes: Sequence[ClientCode]) -> None:
        """A client whose disk hangs comes in when it answers; the others do not wait for it."""
        adopting = {asyncio.create_task(self._adopt(code), name=f"{code}:adopt"): code for code in codes}
        if not adopting:
            return
        # Not before a disk that hangs is known to: what looks at all clients' files then would wait for it.
        deadlines = self._config.deadlines
        limit_s = max(deadlines.prepare + deadlines.kill, Timing().told + _TOLD_BY_THEN_S)
        _, late = await asyncio.wait(adopting, timeout=limit_s)
        for task in late:
            self._sessions.unread[adopting[task]] = (
                "What is kept of this client is still being read: its disk does not answer."
            )
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def close(self) -> None:
        """Call off what has not been read yet."""
        late = set(self._late)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _adopt(self, code: ClientCode) -> None:
        """Whatever is wrong with what is kept of one client, it costs no other one, and no start."""
        try:
            with working_for(code):
                await self._adopt_one(code)
            if code in self._sessions and self._sessions.unread.pop(code, None) is not None:
                session = self._sessions[code]
                if (session.state.wanted, session.state.process) == (Wanted.UP, Process.DOWN):
                    await self._bring(session)
        except Exception as error:  # noqa: BLE001 (a mistake of ours about one client must not keep the daemon from starting)
            self._resources.bus.bug("adopt", error, client=code)
            if code in self._sessions:
                self._sessions.unread.pop(code, None)
            else:
                self._sessions.unread[code] = (
                    "What is stored of this client cannot be used; the log has the reason."
                )

    async def _adopt_one(self, code: ClientCode) -> None:
        resources = self._resources
        try:
            record = await self._read(code)
        except RecordCorrupt as error:
            resources.bus.publish(
                "registry.corrupt",
                client=code,
                error=error.message,
                kept_as=await self._set_aside(code),
            )
            # Whose pipes are kept was wanted; they name its launch, and so it can be ended.
            launch = kept_launch(code, resources.manager.handed())
            record = Record(wanted=Wanted.UP if launch else Wanted.DOWN, launch=launch)
        except (StorageFailed, LimitReached) as error:
            self._sessions.unread[code] = error.message
            resources.bus.publish("registry.unavailable", client=code, error=error.message, hint=READ_LATER)
            return
        try:
            record = await handover.find_profile(Instance(code, record, resources))
        except (StorageFailed, ProfileNotFound) as error:
            self._sessions.unread[code] = str(error)
            resources.bus.publish("profile.not_found", client=code, error=str(error))
            return
        session = self._sessions.add(code, record, self._services)
        if session.untouched:  # it may have values, and be remembered for these alone
            with suppress(WaguardError):
                await session.values.all()
        if record.launch is not None:
            await session.take_over()

    async def _read(self, code: ClientCode) -> Record:
        """What cannot be read is tried again: there may be too many open files for a moment. Raises `RecordCorrupt`, `StorageFailed`."""
        for _ in range(_READS - 1):
            try:
                return await self._resources.records.read(code)
            except RecordCorrupt:
                raise
            except (StorageFailed, LimitReached):
                await asyncio.sleep(_READ_AGAIN_S)
        return await self._resources.records.read(code)

    async def _set_aside(self, code: ClientCode) -> str:
        try:
            return await self._resources.records.set_aside(code)
        except (StorageFailed, LimitReached) as error:
            return f"where it was: {error.message}"

    async def bring_back(self) -> None:
        """Start again what was wanted before the daemon ended, those of a high priority and those used most first, as many at a time as may start."""
        wanted = [
            one
            for one in self._sessions.values()
            if (one.state.wanted, one.state.process) == (Wanted.UP, Process.DOWN)
            and one.code
            not in self._sessions.unread  # it is still being taken over, and is brought back by that
        ]
        held, activity = self._resources.settings.known_of, self._services.learned.activity
        wanted.sort(key=lambda one: (held(one.code).priority.rank, -activity(one.code)))
        self._resources.bus.publish("sessions.returning", sessions=len(wanted))
        waiting = iter(wanted)

        async def bring() -> None:
            for session in waiting:
                await self._bring(session)

        places = self._config.limits.concurrent_starts
        await asyncio.gather(*(bring() for _ in range(min(places, len(wanted)))))

    async def _bring(self, session: Session) -> None:
        """Returns when it has answered, or is not on its way up any more."""
        deadlines = self._config.deadlines
        try:
            with acting(Actor(ActorKind.STARTUP)):
                await session.ask(events.ReturnAsked())
            async with asyncio.timeout(
                deadlines.admit + deadlines.prepare + deadlines.restore + deadlines.start
            ):
                await session.until(lambda: session.state.process not in _ON_ITS_WAY)
        except (WaguardError, TimeoutError):
            return  # it goes on by itself, or the daemon ends
