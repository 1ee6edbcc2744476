"""The network service: does it answer? Whoever waits for it hangs otherwise, and the page looks well.

It is asked for the cookies of a name that has none: no packet leaves, and the page has no part in it. Whether WhatsApp is
reached the page says itself, by its link.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from waguard.core.health import Fault
from waguard.health.probes.census import NETWORK, Members
from waguard.health.probes.effort import AnswerProbe

_NOWHERE = "https://waguard.invalid/"
"""RFC 6761: no such name will ever be."""


def network_probe(
    cookies: Callable[[str], Awaitable[object]],
    browser_answers: Callable[[], Awaitable[bool]],
    members: Members,
    interval_s: float,
    deadline_s: float,
) -> AnswerProbe:
    ask = partial(cookies, _NOWHERE)
    return AnswerProbe(Fault.NETWORK_HUNG, NETWORK, ask, browser_answers, members, interval_s, deadline_s)
