"""All that a daemon can be asked for that is not about one session: see `verbs`."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

from waguard.asking.ask import EVENTS, Answer, Ask, parsed
from waguard.asking.parts import JSON_BODY, as_json, each, nothing, page, quoted, view
from waguard.core.deliveries import State
from waguard.core.model import Status
from waguard.core.shown import (
    Alive,
    AllSessions,
    JobList,
    StatsView,
    Sweep,
    TicketView,
    TokenList,
    TokenMade,
    TokenView,
)
from waguard.core.shown_webhooks import (
    MessageList,
    Redriven,
    WebhookList,
    WebhookMade,
    WebhookTried,
    WebhookView,
)


def list_sessions(
    *,
    status: Collection[Status] = (),
    labels: Collection[str] = (),
    text: str = "",
    limit: int | None = None,
    cursor: str = "",
) -> Ask[AllSessions]:
    """The sessions that the token is for, in the order of their codes; ``next`` is the ``cursor`` of the page behind. ``sandbox`` is the admin's to know."""
    wanted = {
        "status": ",".join(each(status)),
        "label": ",".join(each(labels)),
        "text": text,
        "limit": str(limit or ""),
        "cursor": cursor,
    }
    query = {name: value for name, value in wanted.items() if value}
    return Ask("GET", "/v1/sessions", view(AllSessions), query)


def events(
    *,
    after: str = "",
    clients: Collection[str] = (),
    labels: Collection[str] = (),
    kinds: Collection[str] = (),
) -> Ask[None]:
    """The feed, from now on or from behind the event with the id ``after``."""
    wanted = {
        "after": after,
        "client": ",".join(each(clients)),
        "label": ",".join(each(labels)),
        "kind": ",".join(each(kinds)),
    }
    query = {name: value for name, value in wanted.items() if value}
    return Ask("GET", "/v1/events", nothing, query, {"Accept": EVENTS})


def events_ticket() -> Ask[TicketView]:
    """A ticket for the feed, for a page: once, within a minute."""
    return Ask("POST", "/v1/events/tickets", view(TicketView))


def alive() -> Ask[Alive]:
    """Whether the daemon turns."""
    return Ask("GET", "/livez", view(Alive))


def not_ready() -> Ask[Sequence[str]]:
    """Why no connect is taken now, by code; nothing: they are taken."""

    def read(answer: Answer) -> Sequence[str]:
        reasons: Sequence[str] = parsed(dict[str, Any], answer).get("reasons", ())
        return reasons

    return Ask("GET", "/readyz", read, good=frozenset({200, 503}))


def openapi() -> Ask[dict[str, Any]]:
    """The OpenAPI document."""
    return Ask("GET", "/v1/openapi.json", view(dict[str, Any]))


def stats(client: str | None = None, hours: float = 168.0) -> Ask[StatsView]:
    """What the last hours come to, of one client or of all."""
    query = {"hours": f"{hours:g}"} | ({"client": client} if client is not None else {})
    return Ask("GET", "/v1/stats", view(StatsView), query, slow=True)


def schedule() -> Ask[JobList]:
    """The jobs of the schedule: when each ran last, how that went, and when it runs next."""
    return Ask("GET", "/v1/schedule", view(JobList))


def reap(*, dry_run: bool = False) -> Ask[Sweep]:
    """Sweep now. ``dry_run``: only report what would be done."""
    return Ask("POST", "/v1/reap", view(Sweep), {"dry_run": str(dry_run).lower()}, slow=True)


def tokens() -> Ask[TokenList]:
    """The tokens that were made at run time, the newest first."""
    return Ask("GET", "/v1/tokens", view(TokenList))


def create_token(
    name: str,
    scopes: Sequence[str],
    clients: Sequence[str],
    expires_in_s: float | Literal["never"] = 90 * 86_400.0,
    labels: Sequence[str] = (),
) -> Ask[TokenMade]:
    """Make a token, for these clients and all that have one of these labels. What its bearer shows is in this answer, and is kept nowhere."""
    whose = {"clients": each(clients), "labels": each(labels)}
    told = {"name": name, "scopes": each(scopes), **whose, "expires_in_s": expires_in_s}
    return Ask("POST", "/v1/tokens", view(TokenMade), headers=JSON_BODY, body=as_json(told))


def rotate_token(token: str, overlap_s: float = 3600.0) -> Ask[TokenMade]:
    """Give a token, by its id or name, another secret and a new term; the earlier one is good for ``overlap_s`` more."""
    path = f"/v1/tokens/{quoted(token)}/rotate"
    return Ask("POST", path, view(TokenMade), {"overlap_s": f"{overlap_s:g}"}, once=True)


def revoke_token(token: str) -> Ask[TokenView]:
    """Take a token back, at once."""
    return Ask("POST", f"/v1/tokens/{quoted(token)}/revoke", view(TokenView))


# --- webhooks -----------------------------------------------------------------------------------------------------


def webhooks() -> Ask[WebhookList]:
    """The webhooks, and how their messages get on."""
    return Ask("GET", "/v1/webhooks", view(WebhookList))


def create_webhook(
    address: str, clients: Collection[str] = (), kinds: Collection[str] = ()
) -> Ask[WebhookMade]:
    """Have events posted to an address. The secret that messages are signed with is in this answer alone."""
    told = {"url": address, "clients": each(clients), "kinds": each(kinds)}
    # In the body: no log of anybody's has that.
    return Ask("POST", "/v1/webhooks", view(WebhookMade), headers=JSON_BODY, body=as_json(told))


def change_webhook(
    webhook: str,
    *,
    address: str | None = None,
    clients: Collection[str] | None = None,
    kinds: Collection[str] | None = None,
    enabled: bool | None = None,
) -> Ask[WebhookView]:
    """Change what is not None. Enabled again it goes on where it was."""
    lists = {"clients": clients, "kinds": kinds}
    given = {name: each(some) for name, some in lists.items() if some is not None}
    told = {"url": address, "enabled": enabled, **given}
    return Ask("PATCH", _webhook(webhook), view(WebhookView), headers=JSON_BODY, body=as_json(told))


def rotate_webhook(webhook: str, overlap_s: float = 86_400.0) -> Ask[WebhookMade]:
    """Give a webhook another secret; messages are signed with the earlier one too for ``overlap_s`` more."""
    path, query = _webhook(webhook, "rotate"), {"overlap_s": f"{overlap_s:g}"}
    return Ask("POST", path, view(WebhookMade), query, once=True)


def delete_webhook(webhook: str) -> Ask[WebhookView]:
    """Delete a webhook with the messages that have not arrived."""
    return Ask("DELETE", _webhook(webhook), view(WebhookView))


def test_webhook(webhook: str) -> Ask[WebhookTried]:
    """Send a message of the type `ping`, and tell what the receiver has answered."""
    return Ask("POST", _webhook(webhook, "test"), view(WebhookTried), slow=True)


def webhook_messages(
    webhook: str, state: State = State.DEAD, limit: int = 50, before: int | None = None
) -> Ask[MessageList]:
    """The messages that have not arrived, the newest first: those that wait, or dead letters."""
    query = {"state": state.value, **page(limit, before)}
    return Ask("GET", _webhook(webhook, "messages"), view(MessageList), query)


def redrive_webhook(webhook: str, messages: Sequence[str] = ()) -> Ask[Redriven]:
    """Send dead letters, these or all, again; and try now what waits for its next attempt."""
    told = {"messages": each(messages)}
    return Ask("POST", _webhook(webhook, "redrive"), view(Redriven), headers=JSON_BODY, body=as_json(told))


def _webhook(webhook: str, *parts: str) -> str:
    return "/".join(["/v1/webhooks", *map(quoted, [webhook, *parts])])
