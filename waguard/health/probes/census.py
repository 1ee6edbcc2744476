"""The process table, looked at once for all sessions that ask at about the same time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from waguard.system import host
from waguard.system.host import ProcessRow
from waguard.system.threads import Kind, in_thread

_FRESH_S = 0.5
"""A look is not repeated sooner ..."""
_PAUSE = 20.0
"""... nor before so many times as long has passed as it took: it never takes more than a twentieth of a processor."""
_SETTLED_S = 2.0
"""Until then a process may still bear the command line of the one that it was forked from."""
_TYPE, _SUBTYPE = "--type=", "--utility-sub-type="
BROWSER, RENDERER, GPU, NETWORK = "browser", "renderer", "gpu-process", "network.mojom.NetworkService"
"""What processes of Chromium's are for, as their command lines say."""
_AROUND = frozenset({"bwrap", "setpriv", "prlimit"})
"""Programs that only make room for the browser, and have its command line in theirs."""


@dataclass(frozen=True, slots=True)
class Member:
    """A process of one browser."""

    row: ProcessRow
    role: str
    looked: float = 0.0
    """When that look has begun, monotonic: it may be of some time ago, the more the machine has to do."""


Members = Callable[[], Awaitable[Sequence[Member]]]
"""The processes of one browser now."""


class Census:
    def __init__(self) -> None:
        self._looking = asyncio.Lock()
        self._below: dict[int, list[ProcessRow]] = {}
        self._rows: dict[int, ProcessRow] = {}
        self._began = self._next = 0.0
        self._roles: dict[tuple[int, int], str] = {}

    async def members(self, roots: Collection[int]) -> Sequence[Member]:
        """The roots and all that descends from them, but for those that have ended."""
        async with self._looking:
            if time.monotonic() > self._next:
                began = time.monotonic()
                await in_thread(self._look, kind=Kind.MACHINE)
                now, self._began = time.monotonic(), began
                self._next = now + max(_FRESH_S, _PAUSE * (now - began))
            looked = self._began
        found: dict[int, ProcessRow] = {pid: self._rows[pid] for pid in roots if pid in self._rows}
        below = list(found)
        while below:
            for row in self._below.get(below.pop(), ()):
                if row.pid not in found:
                    found[row.pid] = row
                    below.append(row.pid)
        rows = [row for row in found.values() if row.state not in "ZX"]
        return await in_thread(self._with_roles, rows, looked, kind=Kind.MACHINE)

    def _look(self) -> None:
        rows = host.process_table()
        self._rows = {row.pid: row for row in rows}
        self._below = {}
        for row in rows:
            self._below.setdefault(row.ppid, []).append(row)
        there = {(row.pid, row.start_ticks) for row in rows}
        known = self._roles.copy().items()  # at once: others may be adding to it in their threads
        self._roles = {one: role for one, role in known if one in there}

    def _with_roles(self, rows: Sequence[ProcessRow], looked: float) -> Sequence[Member]:
        return [Member(row, self._role(row), looked) for row in rows]

    def _role(self, row: ProcessRow) -> str:
        """Remembered as soon as it is sure: a process in trouble may keep whoever wants its command line waiting."""
        one = (row.pid, row.start_ticks)
        role = self._roles.get(one)
        if role is None:
            words = host.command_line(row.pid)
            if words and Path(words[0]).name in _AROUND:
                return "sandbox"  # or on its way to become the browser
            kinds = [word.removeprefix(_TYPE) for word in words if word.startswith(_TYPE)]
            parts = [word.removeprefix(_SUBTYPE) for word in words if word.startswith(_SUBTYPE)]
            role = (parts or kinds or [BROWSER])[0]
            if words and host.age_s(row.start_ticks) > _SETTLED_S:
                self._roles[one] = role
        return role
