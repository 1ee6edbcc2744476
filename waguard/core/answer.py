"""When a caller of `connect` is answered, and with what. Pure."""

from enum import StrEnum

from waguard.core.machine import State, status
from waguard.core.model import PASSKEYS, Failure, Link, Process, Reason, Status, Wanted


class Wait(StrEnum):
    """What a caller of `connect` waits for."""

    NONE = "none"
    QR = "qr"
    """A QR code, or connected without one."""
    CONNECTED = "connected"


def answer(state: State, wait: Wait, *, has_qr: bool) -> Failure | bool:
    """True: it is as the caller wants it. False: not yet. A failure: it will not become so by waiting."""
    if wait is Wait.NONE:
        return True
    if state.wanted is Wanted.DOWN:
        return Failure(
            "interrupted", "The attempt was called off by a disconnect or a cleanup.", hint="Connect again."
        )
    if state.process in {Process.BACKOFF, Process.FAILED}:
        return state.failure or Failure("session_failed", "The session is not up.")
    if state.process is not Process.UP:
        return False
    if state.link is Link.LOST and state.reason is Reason.OFFLINE and state.failure is not None:
        return state.failure
    if state.link is Link.LOST and state.reason in _FINAL:
        message, hint = _FINAL[state.reason]
        return Failure("refused", message, hint=hint, details=(("reason", state.reason.value),))
    if state.link is Link.CONNECTED:
        return True
    waits_for_a_person = has_qr or state.reason in PASSKEYS
    return wait is Wait.QR and status(state) is Status.AWAITING_SCAN and waits_for_a_person


_FINAL = {
    Reason.CONFLICT: (
        "WhatsApp is open elsewhere with this login: another browser or tab took it over.",
        "Close it there, then take it back: waguard restart CODE.",
    ),
    Reason.REFUSED: (
        "WhatsApp Web refused this browser or this account.",
        "Is browser.user_agent right, and the browser new enough? Then: waguard connect CODE --fresh.",
    ),
}
