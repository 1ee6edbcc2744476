"""The catalogue of events: each one's name, levels, fields, and what it says. Pure.

An event that is not in it, or has another field or level, cannot be published. Printed: ``python -m waguard.core.catalogue``.
"""

import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from waguard.core.event_fields import FIELDS
from waguard.core.event_kind import Kind, Level
from waguard.core.event_kind import kind as _kind
from waguard.core.webhook_events import WEBHOOKS

OF_A_CLIENT = ("client", "attempt", "pid")
"""Any event may say whose it is, and then of which launch, and which process began it."""

OF_AN_ACTOR: Mapping[str, str] = {
    "actor": "who wanted it: `token:` and whose token it was, `peer:` and which user of this machine by the unix socket, `schedule:` and the job, `remedy:` and which, `startup`",
    "origin": "the address from where",
    "request": "the id of the request",
}
"""Events that somebody's wish causes say whose it was, as far as there is somebody; never a token itself."""


EVENTS: Mapping[str, Kind] = {
    # --- the daemon ---
    "daemon.ready": _kind(
        "The daemon answers on its control port.", "url version browser browser_version sandbox user sessions"
    ),
    "daemon.failed": _kind("The daemon could not start.", "code error hint", "error"),
    "daemon.stopping": _kind("The daemon was asked to end.", "browsers"),
    "daemon.stopped": _kind("The daemon ends now."),
    "daemon.reload_failed": _kind(
        "The daemon goes on as it is: it could not start with the new configuration.", "error hint", "error"
    ),
    "daemon.port_moved": _kind(
        "The control port could not be taken over as configured.", "error hint", "warning"
    ),
    "daemon.lagged": _kind("The daemon's event loop stood still.", "duration_ms", "warning"),
    "daemon.store_full": _kind(
        "The service manager keeps no more file descriptors: a browser cannot outlive this daemon.",
        "error hint",
        "warning",
    ),
    "daemon.unknown_fd": _kind(
        "The service manager kept something that belongs to no session; it was closed.", "fd", "warning"
    ),
    "internal.error": _kind(
        "A bug in waguard: please report it with its trace.", "where error trace left_out", "error"
    ),
    "task.failed": _kind(
        "A background task has failed, and is started again.", "where code error left_out", "error"
    ),
    "storage.hangs": _kind(
        "A call on a client's disk does not end, and nothing of that client goes on before it does.",
        "stage doing waited_s",
        "error",
        differs={"waited_s": "how long it has taken, seconds"},
    ),
    "storage.answers": _kind(
        "A call that did not end has ended.",
        "stage doing waited_s",
        differs={"waited_s": "how long it has taken, seconds"},
    ),
    "secrets.closed": _kind(
        "A file of secrets could be read by others; its mode was corrected.", "error hint", "warning"
    ),
    "jwt.keys_unread": _kind(
        "The keys of the CRM's tokens have changed and cannot be used: those before stay.",
        "error hint",
        "error",
    ),
    "token.created": _kind(
        "A token was made.", "token token_name scopes clients labels expires_at", asked=True
    ),
    "token.rotated": _kind(
        "A token got another secret.", "token token_name expires_at overlap_s", asked=True
    ),
    "token.revoked": _kind("A token was revoked.", "token token_name", asked=True),
    **WEBHOOKS,
    "library.log": _kind(
        "A library has logged something.", "logger message error trace left_out", "warning", "error"
    ),
    "log.lost": _kind("Lines of the log were dropped: their reader was too slow.", "lines", "warning"),
    "log.journal_away": _kind("The journal takes no entries: they wait.", "error hint", "warning"),
    "log.journal_back": _kind("The journal takes entries again.", "waited_s", "warning"),
    # --- what browsers run in ---
    "sandbox.plain": _kind("Browsers run without bubblewrap.", "problem hint", "warning"),
    "sandbox.chromium_off": _kind("Browsers run without Chromium's own sandbox.", "problem", "warning"),
    "sandbox.no_fence": _kind("Browsers run without the fence.", "problem hint"),
    "etc.changed": _kind("Files of /etc have changed, and browsers see the new ones.", "files"),
    "etc.failed": _kind("Files of /etc cannot be copied: browsers see the old ones.", "error", "warning"),
    "cgroup.found": _kind("Each browser gets a cgroup of its own.", "path limits why_no_limits"),
    "cgroup.none": _kind("No cgroup was delegated to the daemon.", "why", "debug"),
    "cgroup.failed": _kind("A browser's cgroup could not be made or removed.", "error", "warning"),
    "cgroup.removed": _kind("A browser's cgroup was removed.", "cpu_s memory_peak_mb", "debug"),
    # --- the control port ---
    "request.done": _kind(
        "A request was answered.",
        "caller method route http_status duration_ms left_out dry_run",
        "info",
        "debug",
        asked=True,
    ),
    "port.full": _kind(
        "The control port has as many connections as it accepts.", "connections closed left_out", "warning"
    ),
    # --- a session ---
    "session.changed": _kind(
        "A session's status has changed.",
        "status wanted process link reason was duration_ms",
        "info",
        "warning",
        differs={"duration_ms": "how long it was what it was, milliseconds"},
        asked=True,
    ),
    "session.failure": _kind(
        "What a session was about has failed.", "code error stage", "warning", details=True, asked=True
    ),
    "session.queued": _kind("A session waits for its turn to start.", "before expected_s", asked=True),
    "session.adopted": _kind(
        "The daemon has adopted a browser of an earlier daemon.", "profile launched_at", asked=True
    ),
    "session.not_adopted": _kind("A browser of an earlier daemon could not be adopted.", "error", "error"),
    "session.left": _kind("A browser was left up for the next daemon."),
    "session.recycled": _kind("A healthy browser is recycled: closed and started again.", "why"),
    "session.qr_shown": _kind("The page shows a QR code."),
    "session.qr_reloaded": _kind("The page was asked for new QR codes.", "clicked"),
    "session.pairing_code": _kind("The page gave a code for linking by phone number.", asked=True),
    "session.account": _kind("The page tells whose account is logged in.", "wid"),
    "session.shutdown_failed": _kind(
        "A session could not be stopped at shutdown.", "where error trace", "error"
    ),
    "sessions.returning": _kind(
        "Sessions that were up come up again.",
        "sessions",
        differs={"sessions": "how many sessions"},
        asked=True,
    ),
    "attempt.done": _kind(
        "A launch has ended, usable or not.",
        "why outcome link code stage duration_ms stages profile",
        "info",
        "warning",
        differs={"profile": "`kept`, `fresh`, `restored` or `returned`"},
        asked=True,
    ),
    "connect.refused": _kind(
        "A connect was refused before anything was started.", "code error", "warning", asked=True
    ),
    "stage.done": _kind("A stage of a launch is done.", "stage duration_ms"),
    "stage.slow": _kind("A stage takes longer than it usually does.", "stage expected_s"),
    "stage.late": _kind("A stage has missed its deadline.", "stage deadline_s at_work"),
    "browser.spawned": _kind("A browser was started.", "sandbox"),
    "browser.close_ignored": _kind(
        "A browser did not close when it was asked to; it was killed.", "error", "warning"
    ),
    "browser.changed": _kind(
        "The installed browser has changed: the next launches use it.",
        "path version path_before version_before",
        differs={"path": "path of the browser's program", "version": "version of the browser"},
    ),
    "page.popups_closed": _kind("Windows that the page had opened were closed.", "pages", "warning"),
    "page.refreshed": _kind(
        "The page was loaded again in a quiet hour: clients of the relay had left something in its document."
    ),
    # --- who drives a page ---
    "relay.attached": _kind("A client has attached to a session's browser.", "left_out", asked=True),
    "relay.detached": _kind("A client was detached.", "reason lasted_ms left_out", asked=True),
    "relay.page_taken": _kind("A client owns the page from here.", "left_out", asked=True),
    "relay.page_left": _kind("A client owns the page no more.", "left_out", asked=True),
    "relay.page_waits": _kind(
        "A client keeps the page waiting: by a `dialog`, a `pause` or a `script`.", "why left_out", asked=True
    ),
    "relay.replayed": _kind(
        "whatsapp-web.js was told that the page has synced, which it did before whatsapp-web.js listened.",
        "left_out",
        asked=True,
    ),
    "relay.strangers_ended": _kind(
        "Clients of an earlier daemon were detached from a browser that was adopted."
    ),
    "relay.refused": _kind(
        "A command of a client's is not allowed.",
        "method reason left_out",
        "warning",
        asked=True,
        differs={"method": "the method of the DevTools protocol"},
    ),
    # --- files ---
    "upload.stored": _kind("A client has uploaded a file for its browser.", "file bytes", asked=True),
    "upload.deleted": _kind("An uploaded file was deleted.", "file why", asked=True),
    "download.done": _kind("A page has downloaded a file.", "file bytes", asked=True),
    "download.refused": _kind("A download was cancelled.", "why left_out", "warning", asked=True),
    "download.deleted": _kind("A downloaded file was deleted.", "file why", asked=True),
    # --- settings of a client ---
    "settings.changed": _kind("Other settings of a client were put.", "keys", asked=True),
    "settings.unreadable": _kind(
        "What was put of a client cannot be read: its browser is not started.", "error", "error"
    ),
    "proxy.stranger": _kind(
        "Somebody else than the client's browser asked for its way to its proxy, and was refused.",
        "left_out",
        "warning",
    ),
    # --- values ---
    "values.unreadable": _kind(
        "A value that an app kept with the session, or all of them, could not be read, and was put aside.",
        "error kept_as",
        "error",
        asked=True,
    ),
    "values.not_returned": _kind(
        "An undo has brought a profile back, and could not bring back the values that were put aside with it.",
        "code error",
        "error",
        asked=True,
    ),
    # --- health ---
    "health.finding": _kind(
        "A fault was found.",
        "fault evidence lasted_ms remedies why",
        "warning",
        differs={"why": "why these remedies and no others"},
    ),
    "health.remedy": _kind(
        "A remedy was tried.", "fault remedy outcome error duration_ms", "info", "warning", asked=True
    ),
    "health.recovered": _kind("A session is well again.", "fault remedy remedies duration_ms"),
    "health.activity": _kind("How much a browser has done.", "cpu_s period_s", "debug"),
    "alert.raised": _kind("An alert was raised: a person should know.", "alert text", "error"),
    "alert.changed": _kind(
        "The text of an alert has changed; at level debug only its numbers.",
        "alert text",
        "error",
        "debug",
    ),
    "alert.cleared": _kind("An alert is over.", "alert"),
    # --- profiles and logins ---
    "profile.suspect": _kind("A profile is suspect, and is used all the same.", "evidence", "warning"),
    "profile.damaged": _kind("A profile is damaged, and is put aside.", "evidence", "error"),
    "profile.restored": _kind("A profile was restored from a snapshot.", "snapshot profile", asked=True),
    "profile.returned": _kind(
        "A profile that was put aside has come back, by an undo.", "profile", asked=True
    ),
    "profile.mended": _kind("The torn ends of a profile's logs were cut off.", "cut"),
    "profile.link_mended": _kind("The link to a profile was made again.", "why", "warning"),
    "profile.not_found": _kind("A profile is gone, and nobody has dropped it.", "error", "error"),
    "profile.deleted": _kind(
        "A profile that was put aside is deleted.", "profile why", "warning", differs={"profile": "its name"}
    ),
    "profile.unwitnessed": _kind(
        "The witness of a profile's files could not be written.", "code error", "warning"
    ),
    "profile.sealed": _kind("A profile is at rest, sealed.", "duration_ms"),
    "profile.seal_failed": _kind("A profile could not be sealed.", "code error", "error"),
    "login.lost": _kind("A login was lost to damage.", "why", "error"),
    "login.doubted": _kind("A page says that it was logged out, and is not believed yet.", "why", "warning"),
    "login.elsewhere": _kind("A profile has a login of another page.", "why", "warning"),
    # --- snapshots ---
    "snapshot.taken": _kind(
        "A snapshot was taken.", "snapshot reason bytes live frozen_ms duration_ms", asked=True
    ),
    "snapshot.failed": _kind("A snapshot could not be taken.", "reason code error", "error", asked=True),
    "snapshot.deleted": _kind("A snapshot was deleted.", "snapshot why", asked=True),
    "snapshot.refused": _kind("Snapshots could not be used.", "snapshots", "error"),
    "snapshot.login_refused": _kind("WhatsApp does not take the login of a snapshot.", "snapshot", "warning"),
    "snapshot.mark_failed": _kind("A snapshot could not be marked as refused.", "snapshot error", "error"),
    # --- what is left behind ---
    "sweep.finding": _kind(
        "Something was left behind.",
        "kind subject evidence action outcome detail",
        "info",
        "warning",
        asked=True,
    ),
    "sweep.done": _kind("A sweep has ended.", "findings duration_ms", "debug", asked=True),
    "sweep.failed": _kind("A sweep could not look.", "code error", "error", asked=True),
    "reaper.killed": _kind("Processes of an earlier launch were killed.", "pids", "warning"),
    "reaper.failed": _kind("What is left of an earlier launch could not be ended.", "error", "error"),
    "cleanup.step": _kind(
        "A step of a cleanup.", "step outcome duration_ms detail", "info", "error", asked=True
    ),
    # --- records ---
    "registry.unavailable": _kind(
        "A session's record could not be read: the session waits.", "error hint", "error"
    ),
    "registry.corrupt": _kind(
        "A session's record made no sense, and was put aside.", "error kept_as", "error"
    ),
    "registry.write_failed": _kind("A session's record could not be written.", "code error", "error"),
    "registry.foreign_directory": _kind(
        "A directory among the sessions is no client's.", "directory", "warning"
    ),
    "history.lost": _kind("Events were not kept.", "path events", "warning"),
    "history.recovered": _kind("The history is written again.", "path events_lost"),
    "history.too_new": _kind(
        "The history was written by a newer waguard, and is left alone.", "path hint", "warning"
    ),
    "history.rows_ignored": _kind(
        "Rows of the history make no sense, and are ignored.", "path rows first", "warning"
    ),
    "history.unreadable": _kind(
        "The history could not be read, and was put aside.", "kept_as error", "error"
    ),
    "history.write_failed": _kind("The history cannot be written.", "path error", "error"),
    "audit.recorded": _kind("A record of the audit is on disk: an anchor of it.", "path number hash"),
    "audit.unreadable": _kind(
        "The audit could not be read, and was put aside: another chain of records begins.",
        "kept_as error",
        "error",
    ),
    "audit.too_new": _kind(
        "The audit was written by a newer waguard, and is left alone: what cannot be undone is refused.",
        "path hint",
        "error",
    ),
    "audit.write_failed": _kind(
        "The audit cannot be written: what cannot be undone is refused, other records wait.",
        "path error",
        "error",
    ),
    "audit.recovered": _kind("The audit is written again.", "path"),
    "audit.lost": _kind("Records of the audit were not written.", "path records", "error"),
    "schedule.done": _kind("A job has ended.", "job duration_ms"),
    "schedule.failed": _kind("A job has failed.", "job error", "error"),
    "schedule.unreadable": _kind(
        "The times of the jobs' last runs could not be read.", "path error", "warning"
    ),
    "schedule.write_failed": _kind(
        "The times of the jobs' last runs could not be written.", "path error", "warning"
    ),
}


class NotInCatalogue(LookupError):
    """A bug: what is to be published is no event of the catalogue's."""


def level_of(name: str, level: Level | None, fields: Mapping[str, object]) -> Level:
    """The level of such an event: the one that is given, else its first. Raises `NotInCatalogue`."""
    kind = EVENTS.get(name)
    if kind is None:
        raise NotInCatalogue(f"no event is called {name}: it belongs into core/catalogue.py")
    if level is not None and level not in kind.levels:
        raise NotInCatalogue(f"{name} is never of level {level}")
    if not kind.details and (others := fields.keys() - {*kind.fields, *OF_A_CLIENT}):
        raise NotInCatalogue(f"{name} has no {', '.join(sorted(others))}")
    return level or kind.levels[0]


def mistake(where: str, error: BaseException) -> Mapping[str, Any]:
    """The fields of `internal.error`."""
    trace = "".join(traceback.format_exception(error))
    return {"where": where, "error": repr(error), "trace": trace}


def page() -> Iterator[str]:
    """The reference, in Markdown."""
    yield "# Events"
    yield ""
    yield "<!-- Made by python -m waguard.core.catalogue; a test keeps it so. -->"
    yield ""
    yield "Each line of the log is one event. Those of a client say so in `client`, with `attempt` and `pid` of its launch."
    yield "Sizes and durations have their unit in the field's name."
    yield ""
    yield "An event that somebody's wish causes says whose it was, as far as there is somebody; a token itself stands nowhere:"
    yield ""
    yield from (f"- `{name}`: {meaning}" for name, meaning in OF_AN_ACTOR.items())
    for name, kind in EVENTS.items():
        yield ""
        yield f"## `{name}`"
        yield ""
        yield f"{kind.says} Level: {' or '.join(kind.levels)}."
        meanings = {**FIELDS, **(kind.differs or {})}
        if kind.fields:
            yield ""
            yield from (f"- `{one}`: {meanings[one]}" for one in kind.fields)
        if kind.details:
            yield "- and the error's details"
        if kind.asked:
            yield "- `actor`, `origin`, `request`: see above"


if __name__ == "__main__":
    print("\n".join(page()))  # noqa: T201 (the docs are made from it)
