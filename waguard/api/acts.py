"""Which requests are acts, that the audit records: a table. What is none says why."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from waguard.api import (
    admin,
    cdp,
    compat,
    events,
    files,
    sessions,
    settings,
    snapshots,
    tokens,
    values,
    webhooks,
)
from waguard.api.asked import Asked
from waguard.api.schemas import ConnectOptions, Options
from waguard.audit.audit import OK, Ended, Wish
from waguard.core.shown import CleanupView, SessionView
from waguard.errors import CleanupFailed


@dataclass(frozen=True, slots=True)
class Act:
    name: str
    must: bool = False
    """It cannot be undone, gives a right, or lets a login out of the house: it is not done unless a record of it is on disk before."""
    hides: frozenset[str] = frozenset()
    """Options whose values are nobody's business."""
    when: Callable[[Any], bool] = lambda _options: True
    """With which options it is one."""

    def wish(self, asked: Asked, options: Options) -> Wish | None:
        """None: with these options it is no act."""
        if getattr(options, "dry_run", False) or not self.when(options):
            return None
        given = options.model_dump(exclude_defaults=True)
        told = {name: one for name, one in asked.request.match_info.items() if name != "code"}
        told |= {name: "..." if name in self.hides else value for name, value in given.items()}
        return Wish(self.name, asked.code or None, told, self.must)

    @staticmethod
    def ended(told: object) -> Ended:
        """What it has done the bus tells; this is what the answer has besides."""
        match told:
            case CleanupView(ok=False):
                return CleanupFailed.code, {}
            case SessionView(status=status):
                return OK, {"status": status.value}
            case web.StreamResponse():
                return OK, {"file": told.headers.get("Content-Disposition", "")}
            case _:
                return OK, {}


def _fresh(options: ConnectOptions) -> bool:
    return options.fresh


Handler = Callable[[Asked, Any], Awaitable[object]]
ACTS: Mapping[Handler, Act] = {
    sessions.connect: Act("connect", must=True, when=_fresh),
    sessions.restart: Act("restart"),
    sessions.disconnect: Act("disconnect"),
    sessions.cleanup: Act("cleanup", must=True),
    sessions.pairing_code: Act("pairing-code", hides=frozenset({"phone"})),
    snapshots.take: Act("snapshot"),
    snapshots.export: Act("export", must=True),
    snapshots.restore: Act("restore", must=True),
    snapshots.bring: Act("import", must=True),
    tokens.create: Act("token-create", must=True),
    tokens.rotate: Act("token-rotate", must=True),
    # Whoever could fill the disk would keep his token alive: it is taken back all the same, and its record waits.
    tokens.revoke: Act("token-revoke"),
    # An address may have a secret in it.
    webhooks.create: Act("webhook-create", must=True, hides=frozenset({"url"})),
    webhooks.change: Act("webhook-change", must=True, hides=frozenset({"url"})),
    webhooks.rotate: Act("webhook-rotate", must=True),
    webhooks.delete: Act("webhook-delete", must=True),
    admin.reap: Act("reap", must=True),
    sessions.undo: Act("undo", must=True),
    # By a label it may give somebody's token a client.
    settings.put: Act("settings", must=True, hides=frozenset({"proxy"})),
    compat.force_cleanup: Act("cleanup", must=True),
}
HARMLESS: Mapping[Handler, str] = {
    events.ticket: "It lets a page look.",
    values.list_values: "It only looks.",
    values.get: "It only looks; an app has written it itself.",
    values.put: "An app's own notes, many a minute; the log has each request.",
    values.delete: "Likewise.",
    compat.connect: "It starts a browser on the profile that is there.",
    sessions.show_qr: "It is asked for every few seconds; what a scan comes to has its event.",
    sessions.screenshot: "It changes nothing, and dashboards take one after the other; the log has each.",
    settings.show: "It only looks.",
    tokens.list_tokens: "It only looks.",
    webhooks.list_webhooks: "It only looks.",
    webhooks.list_messages: "It only looks.",
    webhooks.ping: "What is sent says nothing of anybody.",
    webhooks.redrive: "The receiver was to have these messages before.",
    cdp.attach: "Recorded when it has attached, with when it has gone: `relay.attached`, `relay.detached`.",
    cdp.version: "It only looks.",
    cdp.targets: "It only looks.",
    cdp.ticket: "It attaches nobody yet.",
    files.list_uploads: "It only looks.",
    files.upload: "The page does nothing with it unless somebody drives it, which is recorded.",
    files.delete_upload: "It goes by itself too, after `relay.files_keep_hours`.",
    files.list_downloads: "It only looks.",
    files.download: "Whoever drives the page has read it there, which is recorded.",
    files.delete_download: "It goes by itself too, after `relay.files_keep_hours`.",
}
