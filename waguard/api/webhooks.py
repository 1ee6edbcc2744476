"""Webhooks: each handler reads, asks whoever owns them, answers. And what the body of a message is."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from waguard.api.asked import Asked
from waguard.api.context import WEBHOOKS
from waguard.api.discreet import without_paths
from waguard.api.schemas import (
    MessageOptions,
    Options,
    RedriveOptions,
    SecretOptions,
    WebhookChanges,
    WebhookOptions,
)
from waguard.api.words import in_http
from waguard.core.deliveries import Message, State
from waguard.core.plain_text import plain_json
from waguard.core.shown_webhooks import (
    MessageList,
    MessageView,
    Redriven,
    WebhookList,
    WebhookMade,
    WebhookStatus,
    WebhookTried,
    WebhookView,
)
from waguard.core.webhook import Webhook
from waguard.webhooks.delivery import Delivery
from waguard.webhooks.store import Times

_ANY = TypeAdapter(Any)


def body(kind: str, at: float, said: object) -> str:
    """As https://www.standardwebhooks.com recommends; ``data`` is what the feed has of it, without paths of the daemon's."""
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {"type": kind, "timestamp": when, "data": without_paths(said)}
    return plain_json(in_http(_ANY.dump_json(told).decode()))


async def list_webhooks(asked: Asked, _options: Options) -> WebhookList:
    """The webhooks, and how their messages get on."""
    return WebhookList([_status(*one) for one in await asked.request.app[WEBHOOKS].listed()])


async def create(asked: Asked, options: WebhookOptions) -> WebhookMade:
    """Have events posted to an address from now on. The secret that messages are signed with is told in this answer alone."""
    made, secret = await asked.request.app[WEBHOOKS].create(options.url, options.clients, options.kinds)
    return WebhookMade(secret, _view(made))


async def change(asked: Asked, options: WebhookChanges) -> WebhookView:
    """Change a webhook, disable or enable it. Enabled again it goes on where it was."""
    return _view(await asked.request.app[WEBHOOKS].change(_id(asked), **options.model_dump()))


async def rotate(asked: Asked, options: SecretOptions) -> WebhookMade:
    """Give a webhook another secret; messages are signed with the earlier one too for ``overlap_s`` more."""
    made, secret = await asked.request.app[WEBHOOKS].rotate(_id(asked), options.overlap_s)
    return WebhookMade(secret, _view(made))


async def delete(asked: Asked, _options: Options) -> WebhookView:
    """Delete a webhook with the messages that have not arrived; the answer shows it as it was."""
    return _view(await asked.request.app[WEBHOOKS].delete(_id(asked)))


async def ping(asked: Asked, _options: Options) -> WebhookTried:
    """Send a message of the type `ping` now, and tell what the receiver has answered. It is not sent again."""
    answer = await asked.request.app[WEBHOOKS].test(_id(asked))
    return WebhookTried(answer.ok, answer.http_status, answer.error, answer.duration_ms)


async def list_messages(asked: Asked, options: MessageOptions) -> MessageList:
    """The messages of a webhook that have not arrived, the newest first: those that wait, or dead letters."""
    state = State(options.state)
    webhooks = asked.request.app[WEBHOOKS]
    found = await webhooks.messages(_id(asked), state, options.limit, options.before)
    return MessageList([_message(one, webhooks.times) for one in found])


async def redrive(asked: Asked, options: RedriveOptions) -> Redriven:
    """Send dead letters again, and try now what waits for its next attempt."""
    return Redriven(await asked.request.app[WEBHOOKS].redrive(_id(asked), options.messages))


def _id(asked: Asked) -> str:
    return asked.request.match_info["id"]


def _view(one: Webhook) -> WebhookView:
    return WebhookView(
        one.id,
        one.url,
        one.clients,
        one.kinds,
        not one.disabled,
        one.disabled,
        one.created_at,
        one.created_by,
    )


def _status(one: Delivery, dead_letters: int) -> WebhookStatus:
    return WebhookStatus(
        **asdict(_view(one.webhook)),
        waiting=len(one.waiting),
        dead_letters=dead_letters,
        delivered_at=one.delivered_at,
        error=one.error,
    )


def _message(one: Message, times: Times) -> MessageView:
    next_at = None if one.state is State.DEAD else round(times.wall + max(0.0, one.due - times.now), 3)
    client = one.client or None
    return MessageView(one.seq, one.id, client, one.name, one.at, one.state, one.attempts, next_at, one.error)
