"""Rows of the fault matrix for what the page does: which word is right, what is found, which remedy ends it, how soon.

The word is what the view says (`status`, or `reason` where there is one); it is due within 15 s of the fault, the finding within 60 s,
and with the finding the next step: a remedy under way, a time for the next try, or that a person is needed.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

from bed import Bed, Do, Row
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
            await word(bed, self.words)
            await finding(bed, self.found, person=self.person)
            if self.person:
                await bed.left_alone(10)
            elif self.stays:
                await asyncio.sleep(5)
        finally:
            if self.stays:
                await bed.fleet.clear(self.fault, wid=wid)
        if self.person:
            bed.began = time.monotonic()  # what it was told before is over with what a person does
            await bed.fleet.do(bed.code, "restart", params={"wait": "none"})
        await bed.well()
        if bed.result.cure not in {*self.cures, "-"}:
            raise Unexpected(f"cured by {bed.result.cure} where {' or '.join(self.cures)} will do")
        await bed.recovered(restarts=self.restarts + self.person)
        if self.person:
            bed.result.verdict = "a person is needed, rightly"


async def word(bed: Bed, words: Collection[str]) -> None:
    """What the session is called, by its view or by the log, which misses nothing that is over soon."""
    while time.monotonic() < bed.began + WORD_S + 1:
        view = await bed.fleet.view(bed.code)
        changed = bed.journal.all("session.changed", client=bed.code, since=bed.began)
        for said, at in [(line.fields, line.at) for line in changed] + [(view, time.monotonic())]:
            shown = {said["status"], said["reason"], said["link"]}
            if shown & set(words):
                bed.result.word = next(one for one in words if one in shown)
                bed.result.word_s = at - bed.began
                return
        await asyncio.sleep(0.05)
    last = {key: view[key] for key in ("status", "link", "reason", "signs")}
    raise Unexpected(f"none of {', '.join(words)} within {WORD_S:g} s: {last}")


async def finding(bed: Bed, faults: Collection[str], *, person: bool = False) -> None:
    """It is found, and there is a next step."""
    line = await bed.journal.first(
        "health.finding",
        client=bed.code,
        since=bed.began,
        seconds=FINDING_S,
        when=lambda line: line.fields["fault"] in faults,
    )
    if line is None:
        others = [one.told() for one in bed.findings()]
        raise Unexpected(f"none of {', '.join(faults)} found within {FINDING_S:g} s; found: {others}")
    bed.seen(line, str(line.fields["fault"]))
    shown = (await bed.fleet.view(bed.code))["finding"]
    if shown is not None and not person and shown["remedy"] is None and shown["next_try_s"] is None:
        raise Unexpected(f"no next step: {shown}")


async def scanned(bed: Bed) -> None:
    """Codes rotate: one that has just gone is asked for again."""
    view = await bed.fleet.until(bed.code, lambda view: view["qr"] is not None)
    try:
        bed.wid = await bed.fleet.scan(view["qr"]["text"])
    except Unexpected:
        gone = view["qr"]["text"]
        view = await bed.fleet.until(
            bed.code, lambda view: view["qr"] is not None and view["qr"]["text"] != gone
        )
        bed.wid = await bed.fleet.scan(view["qr"]["text"])
    await bed.fleet.until(bed.code, lambda view: view["status"] == "connected")


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
    await word(bed, ["logged_out"])
    await finding(bed, ["logged_out"], person=True)
    await bed.left_alone(10)
    if restored := bed.journal.all("profile.restored", client=bed.code, since=bed.began):
        raise Unexpected(f"restored: {restored[0].told()}")
    await scanned(bed)
    bed.result.login, bed.result.cure = "gone, rightly", "a scan"


def passkey(value: str) -> Do:
    async def do(bed: Bed) -> None:
        """A scan that WhatsApp takes only when a person has done something more."""
        view = await bed.fleet.connect(bed.code)
        text = view["qr"]["text"]
        await bed.fleet.inject("passkey", ref=text[:60], value=value)
        bed.strike()
        bed.wid = await bed.fleet.scan(text)
        try:
            await word(bed, [f"passkey_{value}"])
            await finding(bed, [f"passkey_{value}"], person=True)
            await bed.left_alone(10)
        finally:
            await bed.fleet.clear("passkey")
        await bed.well()
        bed.result.login = "new"

    return do


def offline(fault: str, value: str | None = None, *, quick: bool = False) -> PageFault:
    cures = ("reload", "restart", "none")
    return PageFault(fault, value, ("offline",), ("offline",), cures, restarts=1, quick=quick)


def wrong(fault: str, value: str | None = None, *, loads: bool, quick: bool = False) -> PageFault:
    return PageFault(
        fault,
        value,
        ("wrong_page", "recovering"),
        ("page_wrong", "offline"),
        loads=loads,
        stays=False,
        quick=quick,
    )


def refused(state: str, word: str) -> PageFault:
    return PageFault("socket_state", state, (word,), (word,), person=True)


FAULTS = (
    offline("opening", quick=True),
    offline("socket_state", "TIMEOUT"),
    *(offline("socket_state", state) for state in ("OPENING", "UNLAUNCHED", "PAIRING")),
    *(
        PageFault(
            "socket_state", state, ("unpaired",), ("unpaired",), ("reload", "restart", "none"), restarts=1
        )
        for state in ("UNPAIRED", "UNPAIRED_IDLE")
    ),
    *(wrong("answers", value, loads=True) for value in ("500", "429", "503", "407", "portal", "empty")),
    wrong("blank", loads=False, quick=True),
    PageFault("syncing", "stuck", ("syncing",), ("sync_stuck",), ("reload", "restart", "none"), loads=True),
    PageFault("socket_state", "DEPRECATED_VERSION", ("outdated",), ("outdated",)),
    *(refused(state, word) for state, word in REFUSED.items()),
    PageFault("unpaired_with_marks", "until_reload", ("unpaired",), ("unpaired",), stays=False, quick=True),
    PageFault(
        "unpaired_with_marks",
        "until_restart",
        ("unpaired",),
        ("unpaired",),
        ("restart",),
        stays=False,
        restarts=1,
    ),
    PageFault("elsewhere", None, ("elsewhere",), ("elsewhere",), stays=False),
    PageFault("dialog", "whats_new", ("connected",), ("notice_open",), ("dismiss",), stays=False),
    PageFault("dialog", "whats_new_stuck", ("connected",), ("notice_open",), ("dismiss", "reload", "none")),
    PageFault("dialog", "update", ("connected",), ("notice_open",), ("dismiss",), stays=False),
    PageFault("dialog", "unknown", ("connected",), ("dialog_open",), person=True),
    PageFault("restricted", "timelock", ("connected",), ("restricted",), person=True),
    PageFault("restricted", "capping", ("connected",), ("restricted",), person=True),
    PageFault("memory_burst", "2500", ("recovering", "starting", "connected"), ("memory_high",), stays=False),
)

PAGE_ROWS: tuple[Row, ...] = (
    Row("slow boot after quick ones", slow_boot),
    Row("logged out, address stripped", logged_out, quick=True),
    *(Row(f"passkey {value}", passkey(value)) for value in ("required", "confirmation")),
    *(Row(one.name, one.do, quick=one.quick) for one in FAULTS),
)
