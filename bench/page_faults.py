"""Rows of the fault matrix for what the page does: which word is right, what is found, which remedy ends it, how soon.

The word is what the view says (`status`, or `reason` where there is one); it is due within 15 s of the fault, the finding within 60 s,
and with the finding the next step: a remedy under way, a time for the next try, or that a person is needed.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from bed import Bed, Row
from fleet import Unexpected

WORD_S, FINDING_S = 15.0, 60.0
REFUSED = {
    "CONFLICT": "conflict",
    "PROXYBLOCK": "proxy_blocked",
    "TOS_BLOCK": "terms_blocked",
    "SMB_TOS_BLOCK": "terms_blocked",
}


@dataclass(frozen=True, slots=True)
class PageFault:
    fault: str
    value: str | None = None
    words: Collection[str] = ()
    found: Collection[str] = ()
    cures: Collection[str] = ("reload",)
    """The cheapest that helps; ``none``: it ends by itself, or by a person."""
    loads: bool = False
    """It is for the next load, so the page loads itself again."""
    stays: bool = True
    """It goes on until the row ends it, some time after it was found."""
    person: bool = False
    """Who is asked to do something: the session is left alone."""
    restarts: int = 0
    quick: bool = False

    @property
    def name(self) -> str:
        return f"{self.fault} {self.value}" if self.value else self.fault

    async def do(self, bed: Bed) -> None:
        wid = await bed.settled()
        told = {} if self.value is None else {"value": self.value}
        bed.strike()
        await bed.fleet.inject(self.fault, wid=wid, **told)
        try:
            if self.loads:
                await bed.fleet.inject("reload", wid=wid)
            await self._word(bed)
            await self._finding(bed)
            if self.person:
                await bed.left_alone(10)
        finally:
            if self.stays:
                await bed.fleet.clear(self.fault, wid=wid)
        if self.person:
            await bed.fleet.do(bed.code, "restart", params={"wait": "none"})  # what a person is told
        await bed.well()
        if bed.result.cure not in {*self.cures, "-"}:
            raise Unexpected(f"cured by {bed.result.cure} where {' or '.join(self.cures)} will do")
        await bed.recovered(restarts=self.restarts + self.person)
        if self.person:
            bed.result.verdict = "a person is needed, rightly"

    async def _word(self, bed: Bed) -> None:
        last: Any = None
        while time.monotonic() < bed.began + WORD_S + 1:
            view = await bed.fleet.view(bed.code)
            said = {view["status"], view["reason"], view["link"]}
            if said & set(self.words):
                bed.result.word = next(word for word in self.words if word in said)
                bed.result.word_s = time.monotonic() - bed.began
                return
            last = {key: view[key] for key in ("status", "link", "reason", "signs")}
            await asyncio.sleep(0.05)
        raise Unexpected(f"none of {', '.join(self.words)} within {WORD_S:g} s: {last}")

    async def _finding(self, bed: Bed) -> None:
        line = await bed.journal.first(
            "health.finding",
            client=bed.code,
            since=bed.began,
            seconds=FINDING_S,
            when=lambda line: line.fields["fault"] in self.found,
        )
        if line is None:
            others = [one.told() for one in bed.findings()]
            raise Unexpected(f"none of {', '.join(self.found)} found within {FINDING_S:g} s; found: {others}")
        bed.seen(line, str(line.fields["fault"]))
        finding = (await bed.fleet.view(bed.code))["finding"]
        if finding is not None and not self.person and not (finding["remedy"] or finding.get("next_try_at")):
            raise Unexpected(f"no next step: {finding}")


async def slow_boot(bed: Bed) -> None:
    """Ten quick loads, then one that takes 20 s and gets on: nothing is wrong with it."""
    wid = await bed.settled()
    for _ in range(10):
        await bed.fleet.do(bed.code, "restart", params={"wait": "connected"})
    bed.strike()
    await bed.fleet.inject("boot", wid=wid, value="20")
    try:
        await bed.fleet.do(bed.code, "restart", params={"wait": "connected"})
    finally:
        await bed.fleet.clear("boot", wid=wid)
    if tried := bed.journal.all("health.finding", "health.remedy", client=bed.code, since=bed.began):
        raise Unexpected(f"not let: {tried[0].told()}")
    await bed.well()
    bed.result.found, bed.result.cure = "nothing, rightly", "-"
    await bed.recovered(restarts=1)  # the row's own


async def logged_out(bed: Bed) -> None:
    """By the phone, on a page that boots in 0.2 s and takes its address away at once."""
    wid = await bed.settled()
    for fault, value in (("boot", {"value": "0.2"}), ("strips_post_logout", {})):
        await bed.fleet.inject(fault, wid=wid, **value)
    bed.strike()
    await bed.fleet.page("POST", "/phone/logout", json={"wid": wid})
    row = PageFault("logout", words=("logged_out",), found=("logged_out",), person=True)
    await row._word(bed)  # noqa: SLF001 (its own kind)
    await row._finding(bed)  # noqa: SLF001 (likewise)
    await bed.left_alone(10)
    if restored := bed.journal.all("profile.restored", client=bed.code, since=bed.began):
        raise Unexpected(f"restored: {restored[0].told()}")
    view = await bed.fleet.until(bed.code, lambda view: view["qr"] is not None)
    await bed.fleet.scan(view["qr"]["text"])
    await bed.fleet.until(bed.code, lambda view: view["status"] == "connected")
    bed.result.login, bed.result.cure = "gone, rightly", "a scan"


def offline(fault: str, value: str | None = None, *, quick: bool = False) -> PageFault:
    cures = ("reload", "restart", "none")
    return PageFault(fault, value, ("offline",), ("offline",), cures, restarts=1, quick=quick)


def wrong(fault: str, value: str | None = None, *, loads: bool, quick: bool = False) -> PageFault:
    return PageFault(fault, value, ("wrong_page",), ("page_wrong",), loads=loads, stays=False, quick=quick)


def refused(state: str, word: str) -> PageFault:
    return PageFault("socket_state", state, (word,), (word,), person=True)


FAULTS = (
    offline("opening", quick=True),
    offline("socket_state", "TIMEOUT"),
    offline("socket_state", "OPENING"),
    *(wrong("answers", value, loads=True) for value in ("500", "429", "503", "407", "portal", "empty")),
    wrong("blank", loads=False, quick=True),
    PageFault("syncing", "stuck", ("syncing",), ("sync_stuck",), loads=True),
    PageFault("socket_state", "DEPRECATED_VERSION", ("outdated",), ("outdated",)),
    *(refused(state, word) for state, word in REFUSED.items()),
)

PAGE_ROWS: tuple[Row, ...] = (
    Row("slow boot after quick ones", slow_boot),
    Row("logged out, address stripped", logged_out, quick=True),
    *(Row(one.name, one.do, quick=one.quick) for one in FAULTS),
)
