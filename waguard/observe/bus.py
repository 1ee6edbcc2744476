"""The one stream of events. Logs, and later metrics, history, audit and webhooks, are subscribers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from waguard.core import catalogue
from waguard.core.actor import Actor, who_acts
from waguard.core.catalogue import mistake
from waguard.core.event_kind import Level
from waguard.core.model import ClientCode


@dataclass(frozen=True, slots=True)
class Event:
    """``name`` is one of the catalogue's, dotted, lower case: ``session.changed``. Fields never carry secrets (tokens, QR codes)."""

    name: str
    level: Level = "info"
    client: ClientCode | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


class Bus:
    """Hands each event to every subscriber, in order, at once. A subscriber must be quick and must not raise."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        self._subscribers = [*self._subscribers, subscriber]

    @contextmanager
    def listening(self, subscriber: Callable[[Event], None]) -> Iterator[None]:
        """For as long as the block lasts."""
        self.subscribe(subscriber)
        try:
            yield
        finally:
            self._subscribers = [one for one in self._subscribers if one is not subscriber]

    def publish(
        self,
        name: str,
        *,
        level: Level | None = None,
        client: ClientCode | None = None,
        actor: Actor | None = None,
        **fields: Any,
    ) -> None:
        """Only what `core.catalogue` has. Without ``level``: the one that is usual for it. ``actor``: whose wish it comes of, where
        nobody acts just now. Raises `NotInCatalogue`.
        """
        level = catalogue.level_of(name, level, fields)
        who = who_acts() or actor
        if who is not None and catalogue.EVENTS[name].asked:
            fields |= who.fields
        self.hand(Event(name, level, client, fields))

    def hand(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber(event)

    def bug(self, where: str, error: BaseException, client: ClientCode | None = None) -> None:
        """Tell, with its trace, what was raised and nobody has foreseen."""
        self.publish("internal.error", client=client, **mistake(where, error))
