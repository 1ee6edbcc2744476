"""The link with WhatsApp, as the page tells it."""

from collections.abc import Mapping

from waguard.core.health import REFUSALS, Fault
from waguard.core.model import Link, Reading, Reason

_NEEDS_SCAN = frozenset({Fault.LOGGED_OUT, Fault.LOGIN_LOST, Fault.UNPAIRED})
_PASSKEYS = frozenset({Fault.PASSKEY_REQUIRED, Fault.PASSKEY_CONFIRMATION})
_OF_DIALOGS = frozenset({Fault.NOTICE_OPEN, Fault.DIALOG_OPEN, Fault.RESTRICTED})
_BY_DIALOG = {
    "whats_new": Fault.NOTICE_OPEN,
    "update": Fault.NOTICE_OPEN,
    "restricted": Fault.RESTRICTED,
}
"""The others are for a person to look at."""
_BY_REASON = {
    Reason.OFFLINE: Fault.OFFLINE,
    Reason.CONFLICT: Fault.CONFLICT,
    Reason.LOGGED_OUT: Fault.LOGGED_OUT,
    Reason.DAMAGED: Fault.LOGIN_LOST,
    Reason.UNPAIRED: Fault.UNPAIRED,
    Reason.ELSEWHERE: Fault.ELSEWHERE,
    Reason.PASSKEY_REQUIRED: Fault.PASSKEY_REQUIRED,
    Reason.PASSKEY_CONFIRMATION: Fault.PASSKEY_CONFIRMATION,
    **{Reason(fault.value): fault for fault in REFUSALS},
}
DOCUMENT = frozenset({Fault.PAGE_WRONG, Fault.PAGE_UNREAD, Fault.STORAGE_REFUSED})
FAULTS = frozenset({*_BY_REASON.values(), *DOCUMENT}) | _OF_DIALOGS
STORAGE = "storage error"
"""A sign that begins so."""


def asked(reading: Reading) -> frozenset[Fault]:
    """Of which faults it tells: one that loads has yet to show how it stands with WhatsApp."""
    if reading.link is Link.UNKNOWN:
        return DOCUMENT | _OF_DIALOGS
    if reading.link is Link.LOADING and not reading.cut_off:
        return DOCUMENT | _OF_DIALOGS
    return FAULTS


def judge(reading: Reading) -> Mapping[Fault, str]:
    """What is wrong with it, with the signs on the page as evidence."""
    signs = ", ".join(reading.signs) or "nothing"
    fault = _BY_REASON.get(reading.reason) if reading.reason is not None else None
    if fault is not None and (reading.link is Link.LOST or fault in _NEEDS_SCAN | _PASSKEYS):
        return {fault: f"the page shows {signs}"}
    if reading.cut_off:
        return {Fault.OFFLINE: f"the page opens its way to WhatsApp and does not get there; it shows {signs}"}
    if reading.dialog is not None:
        fault = _BY_DIALOG.get(reading.dialog, Fault.DIALOG_OPEN)
        return {fault: f"a dialog lies over the page, of the kind {reading.dialog}; it shows {signs}"}
    refused = next((sign for sign in reading.signs if sign.startswith(STORAGE)), None)
    if refused is not None and reading.link in {Link.LOADING, Link.UNKNOWN}:
        return {Fault.STORAGE_REFUSED: f"the page shows {refused}"}
    if reading.link is Link.UNKNOWN:
        return {Fault.PAGE_WRONG if reading.wrong else Fault.PAGE_UNREAD: f"it shows {signs}"}
    return {}
