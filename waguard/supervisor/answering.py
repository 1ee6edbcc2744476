"""Whoever asks for a session up waits here until it is as he wants it, or has failed, or is late; and is told which."""

import asyncio
import math
import time
from typing import Any

from waguard.config.sections import Deadlines
from waguard.core.health.patience import LONGER
from waguard.core.model import Failure, Link, Process, Stage, Wait
from waguard.core.session.answer import answer
from waguard.core.session.state import State, summary_of
from waguard.errors import BY_CODE, DeadlineExceeded, SessionFailed, WaguardError
from waguard.history.learned import Learned
from waguard.session.task import Session


class Answering:
    def __init__(self, deadlines: Deadlines, learned: Learned) -> None:
        self._deadlines = deadlines
        self._learned = learned

    async def wait(self, session: Session, wait: Wait, timeout_s: float | None) -> None:
        """Return when there is an answer. Raises the error that ended the attempt, or `DeadlineExceeded` with the stage that was slow."""
        deadlines = self._deadlines
        limit = timeout_s
        if limit is None:
            limit = deadlines.restore if session.state.source or session.login.doubt else 0.0
            limit += deadlines.close + deadlines.kill + deadlines.admit
            limit += sum(self._learned.limit_s(session.code, one) for one in (Stage.PREPARE, Stage.START))
            # A page that does not get on is told sooner.
            limit += LONGER * self._learned.limit_s(session.code, Stage.OPEN)
            limit += deadlines.scan if wait is Wait.CONNECTED else 0.0

        asked_at, patient = time.monotonic(), timeout_s is None

        def look() -> Failure | bool:
            return answer(session.state, wait, has_qr=session.seen.qr is not None, asked_at=asked_at)

        try:
            while look() is False:
                if patient:  # its turn comes as long as the queue moves, and if not it says so itself
                    await session.until(lambda: session.start.before is None)
                async with asyncio.timeout(limit):
                    await session.until(
                        lambda: look() is not False or (patient and session.start.before is not None)
                    )
        except TimeoutError:
            if session.state.link is Link.SYNCING:
                return  # logged in and on its way: no failure
            if session.start.before is not None:
                raise _queued(session, limit) from None
            stage = _stage(session.state)
            raise DeadlineExceeded(
                f"{session.code} is {summary_of(session.state)} after {limit:g} s; the stage {stage} was not done.",
                hint="It goes on in the background. See: waguard status " + session.code,
                stage=stage,
                deadline_s=limit,
            ) from None
        outcome = look()
        if isinstance(outcome, Failure):
            raise outcome_of(session, outcome)


def _queued(session: Session, limit: float) -> DeadlineExceeded:
    about = f", about {session.start.queued_s:g} s" if session.start.queued_s is not None else ""
    return DeadlineExceeded(
        f"{session.code} waits for its turn to start after {limit:g} s: {session.start.before} wait before it{about}.",
        hint=f"It goes on in the background. See: waguard status {session.code}",
        stage=Stage.ADMIT.value,
        deadline_s=limit,
        before=session.start.before,
        queued_s=session.start.queued_s,
    )


def outcome_of(session: Session, failure: Failure) -> WaguardError:
    """What a caller is told of the failure that ended the attempt: as it is now, where time has passed since."""
    error, process = error_of(failure), session.state.process
    if process in {Process.FAILED, Process.BACKOFF}:  # what the failure said of it was so when it came
        error.details = {key: value for key, value in error.details.items() if key != "retry_after_s"}
        if (at := session.next_try) is not None:
            retry_s = max(1, math.ceil(at - time.monotonic()))
            error.details = {**error.details, "retry_after_s": retry_s}
    if process is Process.FAILED and failure.code != "not_proved_gone":
        return SessionFailed(
            f"{session.code} used up its restart budget. Last: {failure.message}",
            hint=failure.hint,
            **{**error.details, "cause": failure.code},
        )
    if process is Process.BACKOFF:
        error.hint = f"{error.hint} It is tried again automatically.".strip()
    return error


def _stage(state: State) -> str:
    """The named wait that a session is in."""
    match state.process:
        case Process.PREPARING:
            return Stage.PREPARE.value
        case Process.STARTING:
            return Stage.START.value
        case Process.STOPPING:
            return Stage.KILL.value
        case _:
            return "scan" if state.link is Link.AWAITING_SCAN else Stage.OPEN.value


def error_of(failure: Failure) -> WaguardError:
    """A failure that went through the table, as the error it was."""
    details: dict[str, Any] = dict(failure.details)
    if failure.stage is not None:
        details.setdefault("stage", failure.stage.value)
    return BY_CODE.get(failure.code, WaguardError)(failure.message, hint=failure.hint, **details)
