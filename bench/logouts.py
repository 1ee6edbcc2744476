#!/usr/bin/env python3
"""Logouts by the phone, of pages that boot quickly or slowly and keep their address or lose it: each has to be told as what it is.

Real browsers on the simulated WhatsApp Web, several sessions side by side. In each round the phone unlinks a session's login; its
page comes back after a boot of a random length and leaves the address that says so in a random way, or never had it. Counted are
logouts that were told as such, those told as something else, snapshots that were laid over the profile, browsers that were started
anew, and rounds in which nobody was asked for until the code was scanned. There is a snapshot that damage would be answered
with. Exit code 1 unless all were told and nothing else was done.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from figures import Figures, options, rounds
from fleet import Fleet, Unexpected, fleet

ROUNDS, QUICK_ROUNDS = 500, 30
SESSIONS = 6
BOOTS_S = (0.1, 3.0)
STRIPS = ("", "at_once", "booted", "navigates", "never_there")
"""How the address loses what it says; the first: not at all."""
SCANS_AFTER_S = 2.0
"""The person who scans is that late at most."""
TOLD_WITHIN_S = 30.0
BEFORE_S = 5.0
"""Of a logout that was not told as one the log is printed, from so long before it on."""
TAKEN_FOR_DAMAGE = ("login.lost", "login.doubted", "profile.restored", "browser.spawned", "browser.killed")


@dataclass
class Seen:
    """What became of the logouts."""

    told: int = 0
    stood: int = 0
    """The alert, until somebody had scanned, and no longer."""
    told_s: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)


async def main() -> int:
    chosen = options(__doc__, _more)
    count = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
    turns, seen, chance = rounds(count), Seen(), random.Random(chosen.seed)
    async with fleet() as own:
        codes = [f"phone{number}" for number in range(min(chosen.sessions, count))]
        wids = {code: await _begin(own, code) for code in codes}
        began = time.monotonic()
        await asyncio.gather(*(_rounds(own, code, wids[code], turns, seen, chance) for code in codes))
        took = time.monotonic() - began
        damage = Counter(line.event for line in own.journal.all(*TAKEN_FOR_DAMAGE, since=began))
    return _tell(chosen, count, len(codes), seen, damage, took)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--sessions", type=int, default=SESSIONS, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N", help="of the boots and of how the address is left")


async def _begin(own: Fleet, code: str) -> str:
    wid = await own.log_in(code)
    if await own.journal.first("snapshot.taken", client=code, seconds=90) is None:
        raise Unexpected(f"{code} has no snapshot: nothing would be shown")
    return wid


async def _rounds(
    own: Fleet, code: str, wid: str, turns: Iterator[int], seen: Seen, chance: random.Random
) -> None:
    for _ in turns:
        boot, strips = f"{chance.uniform(*BOOTS_S):.2f}", chance.choice(STRIPS)
        try:
            wid = await _one(own, code, wid, (boot, strips), seen, chance)
        except Unexpected as error:
            print(f"  {code}, boot {boot} s, {strips or 'kept'}: {error}")
            seen.wrong["stuck"] += 1
            return


async def _one(
    own: Fleet, code: str, wid: str, how: tuple[str, str], seen: Seen, chance: random.Random
) -> str:
    """The wid of the next login."""
    boot, strips = how
    faults = {"boot": boot, **({"strips_post_logout": strips} if strips else {})}
    for fault, value in faults.items():
        await own.inject(fault, value=value, wid=wid)
    since = time.monotonic()
    await own.page("POST", "/phone/logout", json={"wid": wid})
    found = await own.journal.first("health.finding", client=code, since=since, seconds=TOLD_WITHIN_S)
    view = await own.until(code, lambda view: view["qr"] is not None)
    if found is not None and (found.fields["fault"], view["reason"]) == ("logged_out", "logged_out"):
        seen.told += 1
        seen.told_s.append(found.at - since)
    else:
        seen.wrong[str(found and found.fields["fault"])] += 1
        print(f"  {code}, boot {boot} s, {strips or 'kept'}, reason {view['reason']}:")
        for line in own.journal.lines:
            if line.client == code and line.at >= since - BEFORE_S:
                print(f"    {line.at - since:+.2f} s {line.told()}")
    for fault in faults:
        await own.clear(fault, wid=wid)
    await own.journal.first("alert.raised", client=code, since=since, seconds=TOLD_WITHIN_S)
    await asyncio.sleep(chance.uniform(0, SCANS_AFTER_S))
    before = [
        line.event for line in own.journal.all("alert.raised", "alert.cleared", client=code, since=since)
    ]
    wid = await _scan(own, code)
    await own.until(code, lambda view: view["status"] == "connected")
    cleared = await own.journal.first("alert.cleared", client=code, since=since, seconds=10)
    seen.stood += before == ["alert.raised"] and cleared is not None
    return wid


async def _scan(own: Fleet, code: str) -> str:
    """Codes rotate: the one that is read may be used up when the phone sees it."""
    for _ in range(5):
        view = await own.until(code, lambda view: view["qr"] is not None)
        with contextlib.suppress(Unexpected):
            return await own.scan(view["qr"]["text"])
    raise Unexpected("the phone took no code")


def _tell(
    chosen: argparse.Namespace, count: int, sessions: int, seen: Seen, damage: Counter[str], took: float
) -> int:
    figures = Figures("logouts")
    figures.add("rounds", count)
    figures.add("sessions", sessions)
    figures.add("told_as_logouts", seen.told)
    figures.add("told_as_something_else", count - seen.told, at_most=0)
    figures.add("alert_stood_until_the_scan", seen.stood)
    figures.add("alert_did_not", count - seen.stood, at_most=0)
    figures.add("restores", damage["profile.restored"], at_most=0)
    figures.add("taken_for_damage", damage["login.lost"] + damage["login.doubted"], at_most=0)
    figures.add("browsers_started_anew", damage["browser.spawned"], at_most=0)
    told = sorted(seen.told_s) or [0.0]
    figures.add("told_after_s_median", told[len(told) // 2])
    figures.add("told_after_s_most", told[-1], at_most=15)
    met = figures.close(
        chosen.json,
        f"{seen.told} of {count} logouts by the phone told as such, in {took:.0f} s, boots of {BOOTS_S[0]:g} to {BOOTS_S[1]:g} s",
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
