"""What one client may see of a browser: its own sessions and who made whom, targets, contexts, streams. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from waguard.core.relay.checks import Seat, Where

Info = Mapping[str, Any]
"""A target, as the browser tells of it."""
_SHOWN = frozenset({"page", "tab", "iframe", "worker", "shared_worker", "service_worker"})


class Wanted(NamedTuple):
    """An attachment under way: to this target, or to the browser if it is empty."""

    target: str
    wrapped: bool = False
    by_itself: bool = False


@dataclass(eq=False, slots=True)
class Attached:
    """A DevTools session of the client's."""

    session: str
    target: str
    kind: str
    context: str | None
    parent: "Attached | None" = None
    """In which it was attached."""
    wrapped: bool = False
    """Its messages are texts in messages of its parent's (`Target.sendMessageToTarget`), as it was before sessions had ids."""
    by_itself: bool = False
    """By auto-attach."""
    wraps: bool = False
    """Those that are attached in it by themselves are wrapped."""
    asked: list[Wanted] = field(default_factory=list)
    """What is under way in it."""
    unanswered: set[int] = field(default_factory=set)
    """Numbers of commands that were sent in it."""
    depth: int = 0
    """How many messages one of its own is wrapped in."""


class Seen:
    """``page``: the target of the session's own page. ``browser``: the client's own target of the kind ``browser``."""

    def __init__(
        self,
        root: str,
        browser: str,
        page: Info,
        home: str,
        uploads: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.page: str = page["targetId"]
        self.context: str | None = page.get("browserContextId")
        self.home = home
        self.uploads = uploads
        """Files that the client may name, and where the browser finds each."""
        self.root = Attached(root, browser, "browser", None)
        self.contexts: set[str] = set()
        """Made by the client."""
        self.handles: set[str] = set()
        """Of streams that were opened for it."""
        self.told: dict[str, Info] = {}
        """Targets that the client was told of when they came, as they are."""
        self.closed: dict[str, Info] = {}
        """Those of the page, while it is closed for this client."""
        self.reopened: list[tuple[Attached, str]] = []
        """Where they are to be attached again when it is opened: in which session, and to which target."""
        self._browsers = {browser}
        self._sessions = {root: self.root}
        self._known = {self.page}
        """Targets that were found to be visible."""

    # --- sessions

    @property
    def sessions(self) -> int:
        """How many there are."""
        return len(self._sessions)

    def find(self, session: str | None) -> Attached | None:
        return self.root if session is None else self._sessions.get(session)

    def attach(self, parent: Attached, session: str, info: Info) -> Attached | None:
        """A session that was attached in another one; None if the client may not see its target."""
        target, kind = str(info.get("targetId", "")), str(info.get("type", ""))
        wanted = "" if kind == "browser" and target not in self._browsers else target
        asked = next((one for one in parent.asked if one.target == wanted), None)
        if asked is not None:
            parent.asked.remove(asked)
            if kind == "browser":
                self._browsers.add(target)
        context = info.get("browserContextId") or parent.context  # of a worker that does not say so
        if not self.visible({**info, "browserContextId": context}):
            return None
        how = asked or Wanted(target, parent.wraps, by_itself=True)
        found = Attached(session, target, kind, context, parent, how.wrapped, how.by_itself)
        found.depth = parent.depth + how.wrapped
        self._sessions[session] = found
        return found

    def detach(self, attached: Attached) -> Sequence[Attached]:
        """With those that were attached in it; returns all of them."""
        gone = [one for child in [*self.children(attached)] for one in self.detach(child)]
        self._sessions.pop(attached.session, None)
        if attached.kind == "browser":
            self._browsers.discard(attached.target)
        return [*gone, attached]

    def children(self, of: Attached) -> Iterator[Attached]:
        yield from (one for one in self._sessions.values() if one.parent is of)

    def of_the_page(self) -> Iterator[Attached]:
        """The sessions with the page that were attached in none that is with the page too."""
        for one in self._sessions.values():
            if self.is_page(one.target, one.kind, one.context):
                above = one.parent
                if above is None or not self.is_page(above.target, above.kind, above.context):
                    yield one

    # --- targets

    def is_page(self, target: str, kind: str, context: str | None) -> bool:
        """The page or its tab. A session has one page, so each tab of its context is that of the page."""
        return target == self.page or (kind == "tab" and context == self.context)

    def visible(self, info: Info) -> bool:
        kind, context = info.get("type"), info.get("browserContextId")
        if kind == "browser":
            return info.get("targetId") in self._browsers
        shown = kind in _SHOWN and (context in self.contexts or context == self.context)
        if shown:
            self._known.add(str(info.get("targetId", "")))
        return shown

    def known(self, target: str) -> bool:
        """Whether it was found to be visible already."""
        return target in self._known or target in self._browsers

    def forget_target(self, target: str) -> None:
        self.told.pop(target, None)
        if target != self.page:
            self._known.discard(target)

    def apart(self, attached: Attached) -> bool:
        """Whether it is with something in a context of the client's own."""
        return attached.context in self.contexts

    def seat(self, attached: Attached, *, owner: bool) -> Seat:
        """From where a command in this session comes."""
        where = Where.PAGE
        if attached.kind == "browser":
            where = Where.BROWSER
        elif self.apart(attached):
            where = Where.OWN
        return Seat(where, owner, self.home, self.contexts, self.handles, self.uploads)
