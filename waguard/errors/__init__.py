"""Everything that can go wrong and is reported: one class per kind, each with a ``code`` that never changes once released.

A message says what was wrong, where, and what would be right; ``hint`` names the next command or action; ``details`` are the
facts as data. A kind's docstring is what its code means, ``do`` what to do about it. The edges translate (`api.problems` to
HTTP, `cli` to an exit code). Those of the command line are in `cli.errors`. ``make reference`` prints them all.
"""

from waguard.errors.answers import *  # noqa: F403 (errors of the same tree)
from waguard.errors.base import BY_CODE as BY_CODE
from waguard.errors.base import WaguardError as WaguardError
from waguard.errors.requests import *  # noqa: F403 (errors of the same tree)


class Internal(WaguardError, code="internal"):
    """A bug in waguard; the log has its trace."""

    do = "Report it, with the log's `internal.error`."


# --- storage --------------------------------------------------------------------------------------------------


class StorageError(WaguardError):
    """Files of the daemon's"""


class StorageFailed(StorageError, code="storage_failed"):
    """A file or directory could not be read or written; ``errno`` is the system's number for why."""

    do = "The message names the file and why. See to its owner, its mode and its disk."


class DiskFull(StorageError, code="disk_full", http=507, again=True):
    """The disk has no room for it, or less than `limits.reserve_disk_mb`."""

    do = "Free some space. Sessions that are up go on."


class StorageHangs(StorageError, code="storage_hangs", http=503, again=True):
    """A client's disk does not answer, and nothing of that client goes on before it does; ``stage`` and ``retry_after_s``."""

    passing = True
    do = "See to the disk. It is tried again by itself, and other clients are not touched."


class RecordCorrupt(StorageError, code="record_corrupt"):
    """A session's record can be read, and makes no sense."""

    do = "Nothing: it is put aside, and the session begins anew with the profile that it has."


class RecordUnavailable(StorageError, code="record_unavailable", http=503):
    """A session's record or profile could not be read at the daemon's start; what runs of that client is left alone."""

    do = "Fix what the message names, then: systemctl reload waguard, or restart the daemon."


class HistoryFailed(StorageError, code="history_failed", http=503, again=True):
    """The history could not be read."""

    do = "The message says why. Sessions go on without it."


class AuditUnavailable(StorageError, code="audit_unavailable", http=503, again=True):
    """There can be no record of an act that cannot be undone, and so nothing was done."""

    do = "The message says why there can be none: make room on the disk, or see to the file. Then ask again."


class TenureLost(StorageError, code="tenure_lost", http=503):
    """The client is another daemon's by now; this one stops what runs of it, and writes nothing. ``client`` says which."""

    lasting = True
    do = "Ask the daemon that has it."


class NotOurs(StorageError, code="not_ours"):
    """What was to be deleted is nothing of waguard's, and was left as it is."""

    do = "Report it: nothing should have wanted that."


# --- profiles, logins, snapshots -------------------------------------------------------------------------------


class LoginError(WaguardError):
    """Profiles, logins, snapshots"""


class ProfileLocked(LoginError, code="profile_locked", http=409):
    """Somebody who cannot be identified as ours holds the profile's lock."""

    do = "End the program that uses the profile; the message names what is known of it."


class ProfileTooNew(LoginError, code="profile_too_new", http=409):
    """A newer browser has used the profile; ``profile_version`` and ``browser_version`` are the two majors."""

    do = "Upgrade the browser."


class ProfileNotFound(LoginError, code="profile_not_found", http=0):
    """A client has a login, and its profile is not where it was; nothing was started in its place."""

    do = "The hint has the command that puts it back, and the one that gives it up."


class ProfileNotOwned(LoginError, code="profile_not_owned"):
    """Files of a profile are not the browser's own; nothing in them is damaged."""

    do = "The hint has the command that gives them back to it."


class SnapshotNotFound(LoginError, code="snapshot_not_found", http=404):
    """The client has no snapshot of this id, or none that can be used."""

    do = "See which there are: waguard snapshots CODE"


class SnapshotRefused(LoginError, code="snapshot_refused", http=422):
    """A snapshot, or what was brought to be one, cannot be used. What was there before is untouched.

    ``reason``: ``damaged``, ``wrong_key``, ``other_client``, ``other_origin``, ``no_snapshot``, ``no_login``, ``several_logins``
    (``logins`` names them), ``too_large``.
    """

    do = "`reason` says why. Use another snapshot or archive."


class UndoRefused(LoginError, code="undo_refused", http=409):
    """The last cleanup, fresh, restore or import cannot be taken back. ``reason``: ``nothing`` (none has put a profile aside), ``gone`` (it is there no more; ``snapshot`` was taken of it), ``damaged``."""

    do = "`reason` says why. Use a snapshot: waguard snapshots CODE"


class SnapshotFailed(LoginError, code="snapshot_failed", http=503, again=True):
    """A snapshot could not be taken now."""

    do = "The message says why. The next one is taken automatically."


class LoginInUse(LoginError, code="login_in_use", http=409):
    """What was brought is the login of another client already; ``client`` is which, for the admin."""

    do = "Use the login under that client code, or clean that client up first."


class Refused(LoginError, code="refused", http=409):
    """WhatsApp Web ended the link for good: logged out, or the browser refused."""

    do = "A person has to scan the QR code, or upgrade the browser."


# --- browsers and their processes --------------------------------------------------------------------------------


class ProcessError(WaguardError):
    """Browsers and their processes"""


class BrowserNotFound(ProcessError, code="browser_not_found", http=503):
    """There is no browser that could be used."""

    lasting = True
    do = "Install Chromium, or set `browser.path`. See: waguard doctor"


class BrowserFailed(ProcessError, code="browser_failed", http=502, again=True):
    """The browser did not start, hangs, or ended while it was needed; ``stderr`` has its last lines."""

    do = "It is tried again automatically. If it goes on: waguard doctor"


class SandboxFailed(ProcessError, code="sandbox_failed", http=503):
    """The sandbox could not be made."""

    do = "See: waguard doctor"


class NotProvedGone(ProcessError, code="not_proved_gone"):
    """Processes of a session could not be proved gone; ``pids`` are theirs. Nothing was started in their place."""

    do = "See what holds them: ps -o pid,stat,wchan,cmd PID. Then: waguard cleanup CODE"


# --- the page ------------------------------------------------------------------------------------------------------


class PageError(WaguardError):
    """The page"""


class PageFailed(PageError, code="page_failed", http=502, again=True):
    """The browser runs, and its page crashed, hangs or does not do what it should."""

    do = "It is tried again automatically. See: waguard status CODE"


class PageUnreachable(PageFailed, code="page_unreachable", http=502, again=True):
    """WhatsApp Web is not reached."""

    do = "Is the network up? It is tried again automatically."


class NoPage(PageError, code="no_page", http=409):
    """The session has no page now: its browser does not run."""

    do = "Start it: waguard connect CODE"


class TooManyAttached(PageError, code="too_many_attached", http=503, again=True):
    """As many clients are attached to the session as `relay.clients` allows."""

    do = "End one of them, or raise `relay.clients`."


class NoQrCode(PageError, code="no_qr_code", http=404, again=True):
    """The page shows no QR code now: it is connected, starting or stopped; ``status`` says which."""

    do = "The hint says what to do in that status."


class NoUploads(PageError, code="no_uploads", http=409):
    """The session takes no uploads: they are denied, or its browser was started by a version that had none."""

    do = "Set `relay.uploads_mb`, or start the browser again: waguard restart CODE"


class UploadsFull(PageError, code="uploads_full", http=409):
    """The session has as many uploads as `relay.uploads_mb` allows, as many files, or as many under way."""

    do = "Delete some: `DELETE /v1/sessions/{code}/uploads/{id}`. They go by themselves after `relay.files_keep_hours`."


class NoSuchFile(PageError, code="no_such_file", http=404):
    """The session has no uploaded or downloaded file of this id."""

    do = "`GET /v1/sessions/{code}/uploads` and `/downloads` list them."


class NoPairingCode(PageError, code="no_pairing_code", http=409):
    """The page waits for no phone now: it is connected, starting or stopped; ``status`` says which."""

    do = "Nothing, if it is connected. Else wait until it shows a QR code: waguard connect CODE --wait qr"


class PairingRefused(PageError, code="pairing_refused", http=422):
    """WhatsApp gives no pairing code: there is no such number, or it has had too many."""

    do = "Check the number, with its country code. Wait an hour, or scan the QR code."


# --- sessions and the daemon --------------------------------------------------------------------------------------


class SessionError(WaguardError):
    """Sessions and the daemon"""


class SessionNotFound(SessionError, code="session_not_found", http=404):
    """There is no session of this client; ``close`` has codes that look like it, for the admin."""

    do = "Is the code right? Start one: waguard connect CODE"


class NoSuchValue(SessionError, code="no_such_value", http=404):
    """The session has no value of this key: it was never written, its time to live is over, or it was deleted."""

    do = "`GET /v1/sessions/{code}/values` lists them."


class ValuesFull(SessionError, code="values_full", http=409):
    """The client's values would take more than 1 MiB, or be more than 1000."""

    do = "Delete some, or give those that are soon of no use a time to live."


class SessionFailed(SessionError, code="session_failed", http=503, again=True):
    """The restart budget is used up; ``cause`` is the code of the last failure, ``retry_after_s`` when it is tried again."""

    do = "See why: waguard status CODE. A connect tries at once."


class Interrupted(SessionError, code="interrupted", http=409):
    """What the caller waited for was called off by another request: disconnect, restart, cleanup."""

    do = "Ask again if it is still wanted."


class DeadlineExceeded(SessionError, code="deadline_exceeded", http=504, again=True):
    """A named wait took too long; ``stage`` is which, ``deadline_s`` how long that may take."""

    do = "What was asked for goes on. The hint names the setting, if one changes it."


class NoMemory(SessionError, code="no_memory", http=503, again=True):
    """There is not enough free memory for one more session, or as many are up as may be; ``retry_after_s``."""

    do = "Disconnect a session, add memory, or lower what `limits` wants."


class LimitReached(SessionError, code="limit_reached", http=503, again=True):
    """The host gives no more open files or processes now; ``resource`` says which, ``retry_after_s`` when to ask again."""

    passing = True
    do = "Raise the limit that the message names, or disconnect a session."


class BreakerOpen(SessionError, code="breaker_open", http=503, again=True):
    """Starts fail for several clients, so the host is at fault and starts no browser just now; ``retry_after_s``."""

    do = "Find out why browsers do not start: waguard doctor. One start at a time is tried automatically."


class NotReady(SessionError, code="not_ready", http=503, again=True):
    """The daemon has just started; ``retry_after_s``."""

    do = "Ask again in a second."


class ShuttingDown(SessionError, code="shutting_down", http=503, again=True):
    """The daemon is shutting down."""

    do = "Ask the next one."


class AlreadyRunning(SessionError, code="already_running", http=0):
    """Another daemon owns this sessions directory or this port."""

    do = "See which: waguard status. Or set `sessions.dir`, `api.port`."


class ConfigError(SessionError, code="config_invalid", http=0):
    """The configuration is wrong; the message names file, key and what would be right."""

    lasting = True
    do = "Fix what the message names. See: waguard config check"
