"""The link with WhatsApp, as the page tells it."""

from collections.abc import Mapping

from waguard.core.health import Fault
from waguard.core.model import Link, Reading, Reason

_NEEDS_SCAN = frozenset({Fault.LOGGED_OUT, Fault.LOGIN_LOST, Fault.UNPAIRED})
FAULTS = frozenset({Fault.OFFLINE, Fault.CONFLICT, Fault.REFUSED, Fault.STORAGE_REFUSED}) | _NEEDS_SCAN
_BY_REASON = {
    Reason.OFFLINE: Fault.OFFLINE,
    Reason.CONFLICT: Fault.CONFLICT,
    Reason.REFUSED: Fault.REFUSED,
    Reason.LOGGED_OUT: Fault.LOGGED_OUT,
    Reason.DAMAGED: Fault.LOGIN_LOST,
    Reason.UNPAIRED: Fault.UNPAIRED,
}
STORAGE = "storage error"
"""A sign that begins so."""


def judge(reading: Reading) -> Mapping[Fault, str]:
    """What is wrong with it, with the signs on the page as evidence."""
    signs = ", ".join(reading.signs) or "nothing"
    fault = _BY_REASON.get(reading.reason) if reading.reason is not None else None
    if fault is not None and (reading.link is Link.LOST or fault in _NEEDS_SCAN):
        return {fault: f"the page shows {signs}"}
    refused = next((sign for sign in reading.signs if sign.startswith(STORAGE)), None)
    if refused is not None and reading.link in {Link.LOADING, Link.UNKNOWN}:
        return {Fault.STORAGE_REFUSED: f"the page shows {refused}"}
    return {}
