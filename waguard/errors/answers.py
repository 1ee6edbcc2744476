"""What can be wrong between a daemon and whoever asks it: the command line, and apps by `waguard.client`."""

from typing import Any

from waguard.errors.base import WaguardError


class AnswerError(WaguardError):
    """Between the daemon and whoever asks it"""


class NoDaemon(AnswerError, code="no_daemon", http=0, again=True):
    """No daemon answers at the address."""

    do = "Start it; the hint says how."


class NoAnswer(AnswerError, code="no_answer", http=0, again=True):
    """The daemon did not answer in time, or broke off."""

    do = "Its log says more."


class NotWaguard(AnswerError, code="not_waguard", http=0):
    """What answers is not this version of waguard."""

    do = "After an upgrade restart the daemon; else set `api.port`, or ask at the daemon's own address (--url)."


class Foreign(AnswerError):
    """An error of a daemon that knows more kinds."""

    def __init__(self, code: str, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.code = code
