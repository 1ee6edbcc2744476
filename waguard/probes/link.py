"""The link with WhatsApp, as the page tells it."""

from collections.abc import Mapping

from waguard.core.health import Fault
from waguard.core.model import Link, Reading, Reason

_NEEDS_SCAN = frozenset({Fault.LOGGED_OUT, Fault.LOGIN_LOST, Fault.UNPAIRED})
_PASSKEYS = frozenset({Fault.PASSKEY_REQUIRED, Fault.PASSKEY_CONFIRMATION})
_OF_DIALOGS = frozenset({Fault.NOTICE_OPEN, Fault.DIALOG_OPEN, Fault.RESTRICTED})
FAULTS = (
    frozenset({Fault.OFFLINE, Fault.CONFLICT, Fault.REFUSED, Fault.ELSEWHERE, Fault.STORAGE_REFUSED})
    | _NEEDS_SCAN
    | _PASSKEYS
    | _OF_DIALOGS
)
_BY_DIALOG = {
    "whats_new": Fault.NOTICE_OPEN,
    "update": Fault.NOTICE_OPEN,
    "restricted": Fault.RESTRICTED,
}
"""The others are for a person to look at."""
_BY_REASON = {
    Reason.OFFLINE: Fault.OFFLINE,
    Reason.CONFLICT: Fault.CONFLICT,
    Reason.REFUSED: Fault.REFUSED,
    Reason.LOGGED_OUT: Fault.LOGGED_OUT,
    Reason.DAMAGED: Fault.LOGIN_LOST,
    Reason.UNPAIRED: Fault.UNPAIRED,
    Reason.ELSEWHERE: Fault.ELSEWHERE,
    Reason.PASSKEY_REQUIRED: Fault.PASSKEY_REQUIRED,
    Reason.PASSKEY_CONFIRMATION: Fault.PASSKEY_CONFIRMATION,
}
STORAGE = "storage error"
"""A sign that begins so."""


def judge(reading: Reading) -> Mapping[Fault, str]:
    """What is wrong with it, with the signs on the page as evidence."""
    signs = ", ".join(reading.signs) or "nothing"
    fault = _BY_REASON.get(reading.reason) if reading.reason is not None else None
    if fault is not None and (reading.link is Link.LOST or fault in _NEEDS_SCAN | _PASSKEYS):
        return {fault: f"the page shows {signs}"}
    if reading.dialog is not None:
        fault = _BY_DIALOG.get(reading.dialog, Fault.DIALOG_OPEN)
        return {fault: f"a dialog lies over the page, of the kind {reading.dialog}; it shows {signs}"}
    refused = next((sign for sign in reading.signs if sign.startswith(STORAGE)), None)
    if refused is not None and reading.link in {Link.LOADING, Link.UNKNOWN}:
        return {Fault.STORAGE_REFUSED: f"the page shows {refused}"}
    return {}
