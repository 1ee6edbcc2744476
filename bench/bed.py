"""What the rows of the fault matrix have in common: a session that something is done to, and what is written down of it."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import psutil
from fleet import Fleet, Journal, Line, Unexpected

from waguard.core.health.faults import Fault

PATIENCE_S = 200.0
"""So long a row waits for the daemon to find a fault, and again for it to be cured."""
CALM_S = 3.0
"""So long a session must stay well at the end."""
WELL = ("connected",)
SCANNABLE = ("awaiting_scan",)


@dataclass(slots=True)
class Result:
    """One row of the table."""

    name: str
    word: str = "-"
    """What the view said first that was right."""
    word_s: float | None = None
    """From the fault to that word."""
    found: str = "-"
    cure: str = "-"
    found_s: float | None = None
    """From the fault to the finding."""
    back_s: float | None = None
    """From the fault until all is well."""
    cured_s: float | None = None
    """The same from the finding."""
    login: str = "-"
    restarts: int = 0
    verdict: str = "FAILED"
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return self.verdict == "FAILED"


@dataclass(slots=True)
class Bed:
    """A session that something is done to, and what the table will say of it."""

    fleet: Fleet
    code: str
    result: Result
    wid: str | None = None
    began: float = 0.0
    """When the fault was made."""

    @property
    def journal(self) -> Journal:
        return self.fleet.journal

    async def logged_in(self) -> str:
        self.wid = await self.fleet.log_in(self.code)
        return self.wid

    async def settled(self) -> str:
        """The same, and the login has reached the disk: one that has not does not outlive a SIGKILL."""
        wid = await self.logged_in()
        if await self.journal.first("snapshot.taken", client=self.code, seconds=90) is None:
            raise Unexpected("the login did not reach the disk within 90 s")
        return wid

    def strike(self) -> None:
        """The fault is made now."""
        self.began = time.monotonic()

    async def finding(self, expected: Collection[Fault], seconds: float = PATIENCE_S) -> Line:
        """The daemon's word of the fault; it must be one of these."""
        line = await self.journal.first(
            "health.finding",
            client=self.code,
            since=self.began,
            seconds=seconds,
            # That it is silent is told before it is known why.
            when=lambda line: line.fields["fault"] != Fault.PAGE_SILENT or Fault.PAGE_SILENT in expected,
        )
        if line is None:
            raise Unexpected(f"not found within {seconds:g} s")
        self._found(line, str(line.fields["fault"]))
        if self.result.found not in {fault.value for fault in expected}:
            raise Unexpected(f"found was {line.told()}")
        return line

    def seen(self, line: Line, name: str) -> None:
        """For what the daemon says of other than by a finding."""
        self._found(line, name)

    def _found(self, line: Line, name: str) -> None:
        self.result.found, self.result.found_s = name, line.at - self.began

    async def well(self, status: Collection[str] = WELL, seconds: float = PATIENCE_S) -> None:
        """Until the session is well by its own word and the phone's, and stays so."""
        deadline = time.monotonic() + seconds
        since = None
        why = ""
        while since is None or time.monotonic() - since < CALM_S:
            try:
                why = await self._ill(status)
            except (Unexpected, OSError, TimeoutError) as error:
                why = str(error)
            since = None if why else since or time.monotonic()
            if since is None and time.monotonic() > deadline:
                raise Unexpected(f"not well within {seconds:g} s: {why}")
            await asyncio.sleep(0.1)
        # The log is exact; between it and our own first look lies at most one look.
        said = [line.at for line in self._mine("session.changed", "health.recovered") if line.at <= since]
        self.result.back_s = (
            max(said, default=self.began if self.result.found_s is None else since) - self.began
        )
        if self.result.found_s is not None:
            self.result.cured_s = max(0.0, self.result.back_s - self.result.found_s)
        self._count()

    async def _ill(self, status: Collection[str]) -> str:
        view = await self.fleet.view(self.code)
        if view["status"] not in status:
            return f"status {view['status']}, link {view['link']} ({view['reason']}), signs {view['signs']}"
        if "connected" in status and self.wid is not None:
            link = await self.fleet.link(self.wid)
            if link != "connected":
                return f"the phone says {link or 'unlinked'}"
        if status == SCANNABLE and view["qr"] is None:
            return "no code to scan"
        # One trouble may be found twice: it does not answer, then it loops. Recovered it is once.
        last = self._mine("health.finding", "health.recovered")[-1:]
        return "a finding is not called recovered" if last and last[0].event == "health.finding" else ""

    def findings(self) -> list[Line]:
        return self._mine("health.finding")

    def _mine(self, *events: str) -> list[Line]:
        return self.journal.all(*events, client=self.code, since=self.began)

    def _count(self) -> None:
        cures = [str(line.fields["remedy"]) for line in self._mine("health.recovered")]
        tried = [
            f"{line.fields['remedy']} {line.fields['outcome']}"
            for line in self._mine("health.remedy")
            if line.fields["outcome"] != "cured"
        ]
        if cures:
            self.result.cure = cures[-1]
        if tried:
            self.result.notes.append(", ".join(tried))
        others = [str(line.fields["fault"]) for line in self._mine("health.finding")][1:]
        if others:
            self.result.notes.append("then found: " + ", ".join(others))
        self.result.restarts = len(self._mine("browser.spawned"))
        if self.wid is not None:
            self.result.login = "kept"

    async def recovered(self, *, restarts: int) -> None:
        """All is well: the verdict, if that took no more restarts of the browser than these."""
        await self.works()
        if self.result.restarts > restarts:
            raise Unexpected(f"{self.result.restarts} restarts where {restarts} will do")
        self.result.verdict = "recovered"

    async def works(self) -> None:
        """The page can be drawn: no process of its browser is missing or stands still."""
        status, picture = await self.fleet.ask("GET", f"/v1/sessions/{self.code}/screenshot")
        if status != 200 or not picture.startswith(b"\x89PNG"):
            raise Unexpected(f"no picture of the page: {status}")

    async def left_alone(self, seconds: float = 15.0) -> None:
        """A person is needed: no remedy is tried, no browser restarted."""
        await asyncio.sleep(seconds)
        tried = self._mine("health.remedy", "browser.spawned")
        if tried:
            raise Unexpected(f"not left alone: {tried[0].told()}")
        self.result.verdict = "a person is needed, rightly"

    async def process(self, kind: str) -> psutil.Process:
        found = (await self.fleet.processes(self.code)).get(kind)
        if not found:
            raise Unexpected(f"the browser has no process {kind}")
        # A full Chromium has renderers besides the page's, which is the one that came last.
        return max(found, key=lambda one: (one.create_time(), one.pid))


Do = Callable[[Bed], Awaitable[None]]
Alone = Callable[[Result, argparse.Namespace], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    do: Do | None = None
    alone: Alone | None = None
    """Instead: with a daemon of its own."""
    quick: bool = False
    greedy: bool = False
    """It takes a core for itself: two of the kind would measure each other."""
