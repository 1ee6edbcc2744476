"""When a wait for a connected session is over, and why it will not end well. Pure."""

from waguard.core.health.faults import said
from waguard.core.model import ClientCode, Failure, Link, Process, Reason, Status, Wanted
from waguard.core.session.answer import FINAL
from waguard.core.shown import SessionView
from waguard.errors import BY_CODE, DeadlineExceeded, Interrupted, SessionFailed, WaguardError

_TO_DO = {
    Status.AWAITING_SCAN: "Show its QR code to whoever has the phone, and wait again.",
    Status.LOGGED_OUT: "It has to be linked anew.",
}


def settled(view: SessionView) -> bool:
    """Whether it is connected. Raises what waiting does not mend."""
    if view.wanted is Wanted.DOWN:
        raise Interrupted(f"{view.client} is not to be up.", hint="Connect it first.")
    if view.process is Process.FAILED:
        failure = view.failure
        raise (
            _error(failure.code, failure.message, failure.hint)
            if failure
            else SessionFailed(f"{view.client} is not up.")
        )
    if view.link is Link.LOST and view.reason in FINAL:
        failed: Failure = said(FINAL[Reason(view.reason)])
        raise _error(failed.code, failed.message, failed.hint)
    return view.process is Process.UP and view.link is Link.CONNECTED


def _error(code: str, message: str, hint: str) -> WaguardError:
    return BY_CODE.get(code, SessionFailed)(message, hint=hint)


def late(code: ClientCode, view: SessionView | None, limit_s: float) -> DeadlineExceeded:
    """``view``: as it was seen last."""
    how = "the daemon did not tell how it is" if view is None else f"it is {view.status}"
    return DeadlineExceeded(
        f"{code} was not connected within {limit_s:g} s: {how}.",
        hint=_TO_DO.get(view.status, "") if view is not None else "",
        stage="connected",
        deadline_s=limit_s,
        status=view.status if view is not None else None,
    )
