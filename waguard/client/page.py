"""The genuine pyppeteer `Page` of a session. Nothing else imports a driver."""

import asyncio

import pyppeteer
from pyppeteer.browser import Browser

_OPENS_S = 30.0


async def attach(address: str) -> Browser:
    """Raises `TimeoutError`."""
    async with asyncio.timeout(_OPENS_S):
        # The session's own viewport: pyppeteer's would be set, and seen by everybody.
        return await pyppeteer.connect(browserWSEndpoint=address, defaultViewport=None)
