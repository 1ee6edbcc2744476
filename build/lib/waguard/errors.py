"""Everything that can go wrong and be said so: one class per kind, each with a stable ``code``.

A message says what was wrong, where, and what would be right; ``hint`` names the next command
or action; ``details`` are the facts as data. The edges translate (`api.problems` to HTTP, `cli` to an exit code);
nothing here knows of either.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class WaguardError(Exception):
    """Base of all errors that are shown to people or other programs.

    ``code`` never changes once released; the message may.
    """

    code: ClassVar[str] = "internal"
    lasting: ClassVar[bool] = False
    """Trying again does not help: a person has to mend something."""
    passing: ClassVar[bool] = False
    """The host's want of a moment: it is tried again, and counts against nobody."""

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: Mapping[str, Any] = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(WaguardError):
    """The configuration is wrong; the message names file, key and what would be right."""

    code = "config_invalid"
    lasting = True


class InvalidClientCode(WaguardError):
    code = "invalid_client_code"


class InvalidRequest(WaguardError):
    """A request whose body, query or headers are not of the form the route takes."""

    code = "invalid_request"


class SessionNotFound(WaguardError):
    code = "session_not_found"


class NoQrCode(WaguardError):
    """The session shows no QR code now: it is connected, starting or stopped."""

    code = "no_qr_code"


class BrowserNotFound(WaguardError):
    code = "browser_not_found"
    lasting = True


class BrowserFailed(WaguardError):
    """The browser did not start, or ended while it was needed; ``details`` has ``stderr`` (last lines)."""

    code = "browser_failed"


class PageFailed(WaguardError):
    """The browser runs but the page could not be driven (protocol error, crashed renderer)."""

    code = "page_failed"


class NoPage(WaguardError):
    """The session has no page now: its browser does not run."""

    code = "no_page"


class PageUnreachable(PageFailed):
    """There is no way to the page; the browser shows an error page instead."""


class DeadlineExceeded(WaguardError):
    """A named wait took too long; ``details`` has ``stage`` and ``deadline_s``."""

    code = "deadline_exceeded"


class SandboxFailed(WaguardError):
    """The sandbox could not be made."""

    code = "sandbox_failed"


class NotProvedGone(WaguardError):
    """Processes of a session could not be proved gone; ``details`` has ``pids``. Nothing was started in their place."""

    code = "not_proved_gone"


class ProfileLocked(WaguardError):
    """Somebody we cannot identify as ours holds the profile's lock."""

    code = "profile_locked"


class ProfileTooNew(WaguardError):
    """A newer browser has used the profile; ``details`` has ``profile_version`` and ``browser_version`` (majors)."""

    code = "profile_too_new"


class StorageFailed(WaguardError):
    """The profile could not be made, moved or read."""

    code = "profile_failed"


class BackupNotFound(WaguardError):
    code = "backup_not_found"


class BackupRefused(WaguardError):
    """A snapshot, or what was brought to be one, cannot be used; ``details`` has ``reason``: ``damaged``, ``wrong_key``,
    ``other_client``, ``other_origin``, ``no_snapshot``, ``no_login``, ``several_logins`` (``logins`` names them), ``too_large``. What was there
    before is untouched.
    """

    code = "backup_refused"


class LoginInUse(WaguardError):
    """What was brought is the login of another client already; ``details`` has ``client``, for the admin."""

    code = "login_in_use"


class BackupFailed(WaguardError):
    """A snapshot could not be made now."""

    code = "backup_failed"


class DiskFull(WaguardError):
    code = "disk_full"


class NoMemory(WaguardError):
    """Not enough free memory to admit one more session; ``details`` has ``retry_after_s``."""

    code = "no_memory"


class LimitReached(WaguardError):
    """The host gives no more open files or processes now; ``details`` has ``resource`` and ``retry_after_s``."""

    code = "limit_reached"
    passing = True


class Refused(WaguardError):
    """WhatsApp Web ended the link for good (logged out, browser refused); a person is needed."""

    code = "refused"


class BreakerOpen(WaguardError):
    """The host lets no browser start just now; ``details`` has ``retry_after_s``."""

    code = "breaker_open"


class SessionFailed(WaguardError):
    """The restart budget is used up; ``details`` has ``retry_after_s``."""

    code = "session_failed"


class Interrupted(WaguardError):
    """What the caller waited for was called off by another request (disconnect, cleanup)."""

    code = "interrupted"


class NotReady(WaguardError):
    """The daemon has just started; ``details`` has ``retry_after_s``."""

    code = "not_ready"


class ShuttingDown(WaguardError):
    code = "shutting_down"


class AlreadyRunning(WaguardError):
    """Another daemon owns this sessions directory or this port."""

    code = "already_running"


BY_CODE: Mapping[str, type[WaguardError]] = {kind.code: kind for kind in WaguardError.__subclasses__()}
"""The kinds above by their code, to make an error again of one that was carried as data."""


class Problem(WaguardError):
    """An error that only the edge knows, such as a missing token."""

    def __init__(self, code: str, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.problem_code = code


def code_of(error: WaguardError) -> str:
    return error.problem_code if isinstance(error, Problem) else error.code
