"""Profiles that a real Chromium wrote, logged in to the simulated WhatsApp Web."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bare_browser import browser, make_profile
from damage import PLACES

from waguard.core.model import Link
from waguard.profile import login_files, witness
from waguard.profile.witness import Witness
from waguard.simulator.server import Cadence, Simulator

VERSION = "156.0.0.0"
FILL = """(async () => {
  const opening = indexedDB.open('filler', 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore('store');
  const database = await new Promise((resolve, reject) => {
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = reject;
  });
  for (let round = 0; round < 12; round += 1) {
    await new Promise((resolve, reject) => {
      const transaction = database.transaction('store', 'readwrite', { durability: 'strict' });
      const store = transaction.objectStore('store');
      for (let i = 0; i < 100; i += 1) store.put(crypto.getRandomValues(new Uint8Array(8192)), round * 100 + i);
      transaction.oncomplete = resolve;
      transaction.onerror = reject;
    });
  }
  database.close();
  for (let i = 0; i < 40; i += 1) localStorage.setItem(`fill${i}`, String(Math.random()).repeat(5000));
})()"""
"""So much that there are tables beside the log."""


_ROUNDS = 8
"""Chromium makes tables of a log when it finds the time."""


@dataclass(frozen=True, slots=True)
class Written:
    """A profile as its browser left it, and its witness."""

    profile: Path
    origin: str
    witness: Witness


async def write(*, large: bool, simulator: Simulator | None = None) -> Written:
    if simulator is None:
        async with Simulator(cadence=Cadence(sync_s=0.05)) as own:
            return await write(large=large, simulator=own)
    profile = make_profile()
    rounds = 0
    while rounds < (3 if large else 1) or (large and rounds < _ROUNDS and not has_tables(profile)):
        rounds += 1
        async with browser(profile) as running:
            page = await running.page()
            await page.go(simulator.url)
            reading = await page.until(lambda r: r.link in {Link.AWAITING_SCAN, Link.CONNECTED})
            if reading.qr is not None:
                simulator.scan(reading.qr, "34600000000")
                await page.until(lambda r: r.link is Link.CONNECTED)
            if large:
                await page.evaluate(FILL, awaitPromise=True)
            await running.close()
    origin = login_files.origin_of(simulator.url)
    return Written(
        profile, origin, Witness(VERSION, await asyncio.to_thread(witness.take, profile, origin, {}))
    )


def has_tables(profile: Path) -> bool:
    """Beside the logs, in each database of a login."""
    return all(list(place(profile).glob("*.ldb")) for _, place in PLACES)
