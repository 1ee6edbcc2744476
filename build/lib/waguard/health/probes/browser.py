"""The browser's own process: does it answer its pipe?"""

from collections.abc import Awaitable, Callable

from waguard.core.health import Fault
from waguard.health.probes.census import BROWSER, Members
from waguard.health.probes.effort import AnswerProbe


def browser_probe(
    version: Callable[[], Awaitable[object]], members: Members, interval_s: float, deadline_s: float
) -> AnswerProbe:
    """``version``: `Browser.getVersion`. It says nothing of the page or of the network: those have their own."""
    return AnswerProbe(Fault.BROWSER_HUNG, BROWSER, version, _at_once, members, interval_s, deadline_s)


async def _at_once() -> bool:
    return True
