"""When a caller of `connect` is answered, and with what. Pure."""

from waguard.core.health.faults import REFUSALS, Fault, said
from waguard.core.model import PASSKEYS, Failure, Link, Process, Reason, Status, Wait, Wanted
from waguard.core.session.state import State, summary_of


def answer(state: State, wait: Wait, *, has_qr: bool, asked_at: float = 0.0) -> Failure | bool:
    """True: it is as the caller wants it. False: not yet. A failure: it will not become so by waiting.

    ``asked_at``: since when the caller waits, monotonic.
    """
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
    if state.link is Link.LOST and state.reason in FINAL:
        return said(FINAL[state.reason])
    if state.link is Link.CONNECTED:
        return True
    waits_for_a_person = has_qr or state.reason in PASSKEYS
    if wait is Wait.QR and summary_of(state) is Status.AWAITING_SCAN and waits_for_a_person:
        return True
    return _late(state, asked_at) or False


def _late(state: State, asked_at: float) -> Failure | None:
    """What was found while the caller waited; it goes on to be cured without anybody waiting."""
    treatment = state.treatment
    if treatment is None or treatment.finding.fault not in _TOLD:
        return None
    rests = treatment.remedy is None and bool(treatment.rests)
    tries = treatment.remedy is not None and treatment.found > asked_at
    return treatment.finding.failure if rests or tries else None


FINAL = {Reason(fault.value): fault for fault in (Fault.CONFLICT, *REFUSALS)}
_TOLD = frozenset({Fault.PAGE_NOT_LOADED, Fault.PAGE_WRONG, Fault.PAGE_UNREAD, Fault.OFFLINE})
