"""The visit of a page, from the first navigation on: a table. Pure.

It tells which page what is seen belongs to, and whether the end of a renderer is news. ``decide(visit, event) -> (visit, news)``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum


class Place(StrEnum):
    GOING = "going"
    """The first navigation is not committed: the page answers nothing yet."""
    THERE = "there"
    RELOADING = "reloading"
    """A reload is not committed."""
    RENEWING = "renewing"
    """Nor is this one, for which we have ended the renderer: that it crashes is no news."""
    SETTLING = "settling"
    """It is there, and the end of the renderer before it may still be reported."""


AWAY = frozenset({Place.GOING, Place.RELOADING, Place.RENEWING})


@dataclass(frozen=True, slots=True)
class Visit:
    place: Place = Place.THERE
    step: int = 0
    """Of the reload that the page has come by, see `State.step`; 0: by none."""
    reload: int = 0
    """Of the last reload that was begun."""
    logged_out: bool = False
    """The page's address has said so, and nobody has scanned since."""
    no_way: str = ""
    """Why there was no way to the page the last time that there was none."""

    @property
    def away(self) -> bool:
        """A navigation is not committed yet: the page answers nothing, and the deadline of the stage `open` watches."""
        return self.place in AWAY

    def left(self, step: int) -> bool:
        """Whether the page that was looked at then is about to go, or has gone: it says nothing of the one that comes."""
        return self.away or step != self.step


# --- what happens -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Went:
    """To WhatsApp Web, for the first time in this browser."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """That navigation is committed, or has failed."""


@dataclass(frozen=True, slots=True)
class ReloadBegun:
    step: int


@dataclass(frozen=True, slots=True)
class RenewalBegun(ReloadBegun):
    """A reload for which we end the renderer."""


@dataclass(frozen=True, slots=True)
class ReloadOver:
    """It is committed, has failed, or was called off."""

    step: int


@dataclass(frozen=True, slots=True)
class RendererGone:
    pass


@dataclass(frozen=True, slots=True)
class PageShown:
    """The page says more than that it loads."""


@dataclass(frozen=True, slots=True)
class LogoutSeen:
    """The page has come to an address that says so, and may have left it again."""


@dataclass(frozen=True, slots=True)
class LoginTaken:
    """WhatsApp has taken a login that the client did not have."""


@dataclass(frozen=True, slots=True)
class NoWay:
    """There is no way to the page."""

    why: str


Event = (
    Went
    | Arrived
    | ReloadBegun
    | RenewalBegun
    | ReloadOver
    | RendererGone
    | PageShown
    | LogoutSeen
    | LoginTaken
    | NoWay
)
Outcome = tuple[Visit, bool]
"""The visit, and whether it is news: to be reported, or to be looked at at once."""
Rule = Callable[[Visit, Event], Outcome]

# --- the rules --------------------------------------------------------------------------------------------


def ignore(visit: Visit, _event: Event) -> Outcome:
    """Nothing of interest."""
    return visit, False


def go(visit: Visit, _event: Event) -> Outcome:
    """On the way."""
    return replace(visit, place=Place.GOING), False


def arrive(visit: Visit, _event: Event) -> Outcome:
    """It is there."""
    return replace(visit, place=Place.THERE), False


def reload(visit: Visit, event: Event) -> Outcome:
    """The page that is there is about to go; a reload that was under way is overtaken."""
    assert isinstance(event, ReloadBegun)  # noqa: S101 (the table gives this rule no other event)
    return replace(visit, place=Place.RELOADING, reload=event.step), False


def renew(visit: Visit, event: Event) -> Outcome:
    """Likewise, with its renderer."""
    assert isinstance(event, RenewalBegun)  # noqa: S101 (the table gives this rule no other event)
    return replace(visit, place=Place.RENEWING, reload=event.step), False


def come_back(visit: Visit, event: Event) -> Outcome:
    """The page is another one from here on; the end of a reload that was overtaken ends no other."""
    assert isinstance(event, ReloadOver)  # noqa: S101 (the table gives this rule no other event)
    place = visit.place
    if event.step == visit.reload:
        place = {Place.RELOADING: Place.THERE, Place.RENEWING: Place.SETTLING}.get(place, place)
    return replace(visit, place=place, step=max(visit.step, event.step)), False


def report(visit: Visit, _event: Event) -> Outcome:
    """It has crashed."""
    return visit, True


def expect(visit: Visit, _event: Event) -> Outcome:
    """It was we who have ended it: no news, once."""
    place = {Place.RENEWING: Place.RELOADING, Place.SETTLING: Place.THERE}[visit.place]
    return replace(visit, place=place), False


def log_out(visit: Visit, _event: Event) -> Outcome:
    """The page may leave that address at once: look now, and remember."""
    return replace(visit, logged_out=True), not visit.logged_out


def log_in(visit: Visit, _event: Event) -> Outcome:
    """What its address has said is of a login before."""
    return replace(visit, logged_out=False), False


def note(visit: Visit, event: Event) -> Outcome:
    """People are told why as long as the browser shows its error page."""
    assert isinstance(event, NoWay)  # noqa: S101 (the table gives this rule no other event)
    return replace(visit, no_way=event.why), False


# --- the table --------------------------------------------------------------------------------------------

COLUMNS = tuple(Place)
# fmt: off
ROWS: dict[type[Event], tuple[Rule, ...]] = {
    #              going      there      reloading  renewing   settling
    Went:         (ignore,    go,        ignore,    ignore,    go),
    Arrived:      (arrive,    ignore,    ignore,    ignore,    ignore),
    ReloadBegun:  (reload,    reload,    reload,    reload,    reload),
    RenewalBegun: (renew,     renew,     renew,     renew,     renew),
    ReloadOver:   (come_back, come_back, come_back, come_back, come_back),
    RendererGone: (report,    report,    report,    expect,    expect),
    PageShown:    (ignore,    ignore,    ignore,    ignore,    arrive),
    LogoutSeen:   (log_out,   log_out,   log_out,   log_out,   log_out),
    LoginTaken:   (log_in,    log_in,    log_in,    log_in,    log_in),
    NoWay:        (note,      note,      note,      note,      note),
}
# fmt: on
TABLE: dict[tuple[Place, type[Event]], Rule] = {
    (place, event): rule for event, rules in ROWS.items() for place, rule in zip(COLUMNS, rules, strict=True)
}


def decide(visit: Visit, event: Event) -> Outcome:
    """The next state of the visit, and whether what has happened is news."""
    return TABLE[visit.place, type(event)](visit, event)
