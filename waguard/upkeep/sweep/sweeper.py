"""Carries out a sweep: looks once, proposes, and does it, or in a dry run does not. One at a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial

from waguard.core.model import ClientCode
from waguard.core.shown import Leftover, Sweep
from waguard.errors import StorageFailed, StorageHangs
from waguard.profile.generation import Retired
from waguard.session.resources import Resources
from waguard.session.sessions import Sessions
from waguard.session.task import Session
from waguard.system import host, shortage
from waguard.system.threads import Kind, in_thread, of_this_loop, working_for
from waguard.upkeep.sweep import Proposal, Scene, leftovers, processes, retired, space, transfers, values

Finder = Callable[[Scene], Iterator[Proposal]]
IN_THE_WAY: Sequence[Finder] = (processes.find, leftovers.find)
"""Of a launch: dealt with before there is one. What runs goes before what it holds."""
TAKES_ROOM: Sequence[Finder] = (retired.find, transfers.find, values.find, space.find)
"""This may take minutes, and nobody has to wait for it."""
FINDERS = (*IN_THE_WAY, *TAKES_ROOM)
PUT_ASIDE = (retired.find,)
"""Only what is done with profiles that were put aside."""


_MOST_S = 600.0
"""A look, or what is done about one finding, takes no longer unless a disk hangs."""


class Sweeper:
    def __init__(
        self,
        resources: Resources,
        sessions: Sessions,
        save: Callable[[Retired], Awaitable[tuple[Retired, str]]],
    ) -> None:
        self._resources = resources
        self._sessions = sessions
        self._save = save
        self._sweeping = asyncio.Lock()

    async def sweep(
        self,
        *,
        dry_run: bool = False,
        starting: bool = False,
        among: Sequence[Finder] = FINDERS,
    ) -> Sweep:
        """Look, and deal with what is found; what fails is told in its finding. Raises `StorageFailed`, `StorageHangs` if it cannot look."""
        began = time.monotonic()
        async with self._sweeping:
            found = await self._found(starting=starting, among=among)
            in_use = self._in_use()  # by now
            proposals = [one for one in found if one.generation not in in_use]
            for proposal in () if dry_run else proposals:
                await self._carry_out(proposal)
            if retired.find in among and not dry_run:
                await in_thread(self._resources.profiles.aside.note_look, time.time())
        findings = [proposal.finding for proposal in proposals]
        ms = round((time.monotonic() - began) * 1000, 1)
        if not dry_run:
            self._tell(findings, ms)
        return Sweep(dry_run, findings, ms)

    async def _found(self, *, starting: bool, among: Sequence[Finder]) -> Sequence[Proposal]:
        if of_this_loop().hanging:
            raise StorageHangs(
                "What is left behind cannot be told from what is in use while a disk does not answer."
            )
        look = partial(self._look, dict(self._sessions), self._in_use(), starting, among)
        try:
            async with asyncio.timeout(_MOST_S):
                return await in_thread(look, kind=Kind.COPIES)
        except TimeoutError:
            raise StorageHangs(f"To look for what is left behind took longer than {_MOST_S:g} s.") from None

    def _in_use(self) -> frozenset[str]:
        return frozenset().union(*(session.in_use for session in self._sessions.values()))

    def _look(
        self,
        sessions: Mapping[ClientCode, Session],
        in_use: frozenset[str],
        starting: bool,
        among: Sequence[Finder],
    ) -> Sequence[Proposal]:
        resources = self._resources
        scene = Scene(
            resources.config,
            resources.profiles,
            resources.snapshots,
            sessions,
            host.process_table(),
            self._linked(),
            self._save,
            time.time(),
            starting,
            in_use,
            resources.cgroups,
            resources.profiles.aside.looked_at(),
            self._sessions.unread,
        )
        return [proposal for finder in among for proposal in finder(scene)]

    def _linked(self) -> Mapping[str, ClientCode]:
        profiles = self._resources.profiles
        linked = {}
        for name in profiles.codes():
            code = ClientCode(name)
            try:
                _, profile = profiles.find(code)
            except StorageFailed:
                if code in self._sessions or code in self._sessions.unread:
                    raise  # with an owner unknown, none could be told to be without one
                continue  # no directory of ours
            if profile is not None:
                linked[profile.generation] = code
        return linked

    async def _carry_out(self, proposal: Proposal) -> None:
        finding = proposal.finding
        if proposal.act is None:
            finding.outcome = "reported"
            return
        if proposal.generation in self._in_use():
            finding.outcome = "nothing"
            return
        try:
            with working_for(finding.client or ""):
                async with asyncio.timeout(_MOST_S) as scope:
                    done = await proposal.act()
        except Exception as error:  # noqa: BLE001 (one finding must not keep the others from being dealt with)
            if not isinstance(error, OSError) and shortage.known(error) is None:
                self._resources.bus.bug(f"sweep.{finding.kind}", error)
            late = f"It took longer than {_MOST_S:g} s." if scope.expired() else ""
            finding.outcome = "failed"
            finding.detail = late or getattr(error, "message", str(error) or repr(error))
        else:
            finding.outcome, finding.detail = ("nothing", "") if done is None else ("done", done)

    def _tell(self, findings: Sequence[Leftover], ms: float) -> None:
        for finding in findings:
            alarming = finding.outcome in {"failed", "reported"}
            self._resources.bus.publish(
                "sweep.finding",
                level="warning" if alarming else "info",
                client=ClientCode(finding.client) if finding.client else None,
                kind=finding.kind,
                subject=finding.subject,
                evidence=finding.evidence,
                action=finding.action,
                outcome=finding.outcome,
                detail=finding.detail or None,
            )
        self._resources.bus.publish("sweep.done", findings=len(findings), duration_ms=ms)

    async def make_room(self, enough: Callable[[], bool]) -> None:
        """Delete retired profiles, the oldest first, until there is ``enough`` room or none is left that may go."""
        async with self._sweeping:
            for one in await in_thread(self._resources.profiles.aside.all):
                if await in_thread(enough):
                    return
                if retired.may_go(one) and one.generation not in self._in_use():
                    await in_thread(self._resources.profiles.aside.delete, one.path, kind=Kind.COPIES)
                    self._resources.bus.publish(
                        "profile.deleted", profile=one.path.name, why="the disk is full"
                    )
