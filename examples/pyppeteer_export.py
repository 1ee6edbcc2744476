"""All messages that the page has, as CSV, beside whatever bot owns it.

pip install waguard
WAGUARD_TOKEN=$(waguard token demo) python pyppeteer_export.py > messages.csv
"""

import asyncio
import csv
import sys

from waguard.client import URL, Client

MESSAGES = """() => window.require("WAWebCollections").Msg.getModelsArray()
  .map(({ id, t, type, body }) => [new Date(1000 * t).toISOString(), id.remote._serialized, id.fromMe, type, body])"""


async def main(url: str = URL) -> None:
    async with Client(url) as waguard:
        page = await waguard.session("demo").page(own=False)  # pyppeteer's Page
        csv.writer(sys.stdout).writerows(await page.evaluate(MESSAGES))


asyncio.run(main(*sys.argv[1:]))
