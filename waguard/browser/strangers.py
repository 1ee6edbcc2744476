"""Sessions on a browser's pipe that nobody knows any more: those of the guests of a daemon that has died.

They outlive it with the pipe, and so does what they have paused, held or set; their ids are lost. Each is a target of the kind ``browser``, which only
the discovery of targets tells of (tried with Chromium 156: `Target.getTargets` does not).
"""

import asyncio
from typing import Any

from waguard.browser.devtools import DevTools

_OFF = {"discover": False}
_SHOWN = (
    _OFF,
    {"discover": True, "filter": [{"type": "browser"}, {"exclude": True}]},
    _OFF,
    {"discover": True, "filter": [{"type": "page"}]},
)
"""What was told of already is not told anew by another filter, but when it is off in between."""


async def end_strangers(devtools: DevTools) -> int:
    """Detach whoever has a session with the browser but the daemon; returns how many had. Only before a guest of its own is admitted.

    The discovery of pages is off for as long as the browser takes for three commands, and then tells of the page as it is. The caller sets
    the deadline. Raises `PageFailed`.
    """
    found: list[str] = []

    def note(params: dict[str, Any]) -> None:
        match params:
            case {"targetInfo": {"targetId": str(target), "type": "browser", "attached": True}}:
                found.append(target)

    browser = devtools.browser
    end = browser.observe("Target.targetCreated", note)
    try:
        # All at once, so that the browser has them one after the other.
        told = [browser.send("Target.setDiscoverTargets", shown) for shown in _SHOWN]
        own = (await browser.send("Target.getTargetInfo"))["targetInfo"]["targetId"]
        await asyncio.gather(*told)
    finally:
        end()
    strangers = [one for one in found if one != own]
    for target in strangers:
        await browser.send("Target.detachFromTarget", {"targetId": target})
    return len(strangers)
