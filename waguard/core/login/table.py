"""What becomes of a client's login: a table. Pure.

The page shows it, and says when WhatsApp takes it no more; files are damaged; snapshots have it. ``decide(state, event, now)``
returns the next state and what is to be done.
"""

from collections.abc import Callable
from dataclasses import replace

from waguard.core.login.events import (
    Adopted,
    CleanedUp,
    DamageSeen,
    Event,
    MarkSeen,
    PageAsksScan,
    PageConnected,
    PageEmpty,
    PageLoggedOut,
    PageQuiet,
    ProfileFresh,
    ProfileKept,
    ProfileRestored,
    ProfileReturned,
    SnapshotTaken,
)
from waguard.core.login.orders import Announce, Hold, LetGo, MarkRefused, Note, Order
from waguard.core.login.state import LoginState, Standing
from waguard.core.model import Verdict

Outcome = tuple[LoginState, tuple[Order, ...]]
Rule = Callable[[LoginState, Event, float], Outcome]

_SAVED = {Standing.SCANNED: Standing.SAVED, Standing.ON_DISK: Standing.KEPT}
_SEEN_ON_DISK = {Standing.SCANNED: Standing.ON_DISK, Standing.SAVED: Standing.KEPT}
_OF_ANOTHER = {Standing.SAVED: Standing.SCANNED, Standing.KEPT: Standing.ON_DISK}
"""Nobody knows whose login it is now: the snapshots may have another one."""

# --- the rules --------------------------------------------------------------------------------------------


def ignore(state: LoginState, _event: Event, _now: float) -> Outcome:
    """Nothing of interest."""
    return state, ()


def keep(state: LoginState, event: Event, _now: float) -> Outcome:
    """It is as it was; what this launch shows of it has yet to be seen."""
    assert isinstance(event, ProfileKept)  # noqa: S101 (the table gives this rule no other event)
    return LoginState(state.on_record, state.snapshot, proved=event.proved), ()


def restore(state: LoginState, event: Event, _now: float) -> Outcome:
    """The snapshot's login takes its place."""
    assert isinstance(event, ProfileRestored)  # noqa: S101 (the table gives this rule no other event)
    again = state.standing is Standing.DOUBTED and state.snapshot == event.snapshot
    return LoginState(Standing.RESTORED, event.snapshot, again=again), ()


def come_back(_state: LoginState, event: Event, _now: float) -> Outcome:
    """It stands as it did; what its files were then nobody has noted."""
    assert isinstance(event, ProfileReturned)  # noqa: S101 (the table gives this rule no other event)
    return LoginState(event.standing, event.snapshot, proved=False), ()


def leave(_state: LoginState, _event: Event, _now: float) -> Outcome:
    """None is there."""
    return LoginState(), ()


def leave_or_lose(state: LoginState, event: Event, now: float) -> Outcome:
    """None is there; if damage was the reason it is lost."""
    assert isinstance(event, ProfileFresh)  # noqa: S101 (the table gives this rule no other event)
    return (LoginState(Standing.LOST), ()) if event.damaged else leave(state, event, now)


def adopt(state: LoginState, _event: Event, _now: float) -> Outcome:
    """What its files were when its browser was started is not known."""
    return replace(state, proved=False), ()


def adopt_held(state: LoginState, event: Event, now: float) -> Outcome:
    """... and if WhatsApp has taken it in that launch, its databases are held again."""
    assert isinstance(event, Adopted)  # noqa: S101 (the table gives this rule no other event)
    state, _ = adopt(state, event, now)
    return (replace(state, taken_at=now), (Hold(),)) if event.taken else (state, ())


def mark(state: LoginState, _event: Event, _now: float) -> Outcome:
    """It is on disk: another browser finds it there, and if not it is damaged."""
    return replace(state, standing=_SEEN_ON_DISK[state.standing]), ()


def save(state: LoginState, _event: Event, _now: float) -> Outcome:
    """A snapshot has it."""
    return replace(state, standing=_SAVED[state.standing]), ()


def doubt(state: LoginState, event: Event, _now: float) -> Outcome:
    """The next launch does not use it."""
    assert isinstance(event, DamageSeen)  # noqa: S101 (the table gives this rule no other event)
    return _doubted(state, event.why), ()


def scan(state: LoginState, _event: Event, now: float) -> Outcome:
    """Somebody has scanned: a new one, which is nowhere else yet."""
    return LoginState(Standing.SCANNED, proved=state.proved, shown=state.shown, taken_at=now), (Hold(),)


def take(state: LoginState, _event: Event, now: float) -> Outcome:
    """WhatsApp takes it. If the page has asked for a scan before, somebody may have scanned: it is as new."""
    standing = _OF_ANOTHER.get(state.standing, state.standing) if state.asked else state.standing
    return _taken(state, standing, now)


def take_restored(state: LoginState, _event: Event, now: float) -> Outcome:
    """WhatsApp takes it, and the snapshot has it; if the page has asked for a scan before, it is as new."""
    return _taken(state, Standing.SCANNED if state.asked else Standing.SAVED, now)


def _taken(state: LoginState, standing: Standing, now: float) -> Outcome:
    first = state.taken_at is None
    after = replace(
        state, standing=standing, snapshot="", asked=False, taken_at=now if first else state.taken_at
    )
    return after, (Hold(),) if first else ()


def ask(state: LoginState, event: Event, _now: float) -> Outcome:
    """The page takes no notice of it, or cannot read it: that is no loss, unless a database is."""
    assert isinstance(event, PageQuiet)  # noqa: S101 (the table gives this rule no other event)
    return _lost(state, event, event.damage) if event.damage else (replace(state, asked=True), ())


def end(state: LoginState, event: Event, _now: float) -> Outcome:
    """The phone has unlinked it; but a page that finds its storage empty may say the same: a snapshot is worth one try then."""
    assert isinstance(event, PageQuiet)  # noqa: S101 (the table gives this rule no other event)
    if event.damage:
        return _lost(state, event, event.damage)
    if not state.proved and state.taken_at is None and event.snapshots:
        why = "it says that it was logged out, but what its files were is not known"
        return _doubted(state, why), (Announce("login.doubted", (("why", why),)),)
    return _ended(state, Standing.LOGGED_OUT), (LetGo(),)


def miss(state: LoginState, event: Event, now: float) -> Outcome:
    """What the page had it has taken out of its storage itself; what it never had is lost."""
    assert isinstance(event, PageQuiet)  # noqa: S101 (the table gives this rule no other event)
    if state.shown or state.taken_at is not None:
        return end(state, event, now)
    return _lost(state, event, event.damage or "it is gone, and nobody has logged it out")


def miss_restored(state: LoginState, event: Event, now: float) -> Outcome:
    """The page finds nothing of what the snapshot has, and does not say that it was logged out: it is restored once more."""
    assert isinstance(event, PageQuiet)  # noqa: S101 (the table gives this rule no other event)
    if event.damage or state.shown or state.again or state.snapshot not in event.snapshots:
        return refuse(state, event, now)
    why = f"the page found nothing of the login that snapshot {state.snapshot} has"
    return _doubted(state, why), (Announce("login.doubted", (("why", why),)),)


def refuse(state: LoginState, event: Event, _now: float) -> Outcome:
    """WhatsApp does not take the login of that snapshot; if it was damaged, an older one may do."""
    assert isinstance(event, PageQuiet)  # noqa: S101 (the table gives this rule no other event)
    if event.damage:
        return _lost(state, event, event.damage)
    what = f"that of snapshot {state.snapshot} is no longer valid, WhatsApp did not take it: a scan is needed"
    orders = (
        Note(Verdict.SUSPECT, what),
        Announce("snapshot.login_refused", (("snapshot", state.snapshot),)),
        MarkRefused(state.snapshot),
        LetGo(),
    )
    return _ended(state, Standing.LOGGED_OUT), orders


_FULL = "No space left"
"""In what Chromium says of a database that it could not open: the snapshot may be as sound as ever."""


def _lost(state: LoginState, event: PageQuiet, why: str) -> Outcome:
    orders: tuple[Order, ...] = (Announce("login.lost", (("why", why),)),)
    others = set(event.snapshots)
    if state.standing is Standing.RESTORED and _FULL not in why:
        orders += (MarkRefused(state.snapshot),)
        others.discard(state.snapshot)
    if others:
        return _doubted(state, why), orders
    return _ended(state, Standing.LOST), (*orders, Note(Verdict.DAMAGED, why), LetGo())


def hangs_on_snapshots(state: LoginState, kind: type[PageQuiet], damage: str) -> bool:
    """Whether what follows from what a page says depends on which snapshots there are."""
    if damage or not state.at_stake:
        return bool(damage)
    if state.standing is Standing.RESTORED:
        return kind is PageEmpty and not state.shown and not state.again
    if kind is PageEmpty and not state.shown and state.taken_at is None:
        return True
    return kind in {PageEmpty, PageLoggedOut} and not state.proved


def _doubted(state: LoginState, why: str) -> LoginState:
    return replace(state, standing=Standing.DOUBTED, before=state.standing, why=why)


def _ended(state: LoginState, how: Standing) -> LoginState:
    return LoginState(how, proved=state.proved)


# --- the table --------------------------------------------------------------------------------------------

COLUMNS = tuple(Standing)
# fmt: off
ROWS: dict[type[Event], tuple[Rule, ...]] = {
    #                 none     scanned        on_disk        saved          kept           restored       doubted        lost     logged_out
    ProfileKept:     (keep,    keep,          keep,          keep,          keep,          keep,          keep,          keep,    keep),
    ProfileRestored: (restore, restore,       restore,       restore,       restore,       restore,       restore,       restore, restore),
    ProfileReturned: (come_back, come_back,   come_back,     come_back,     come_back,      come_back,     come_back,     come_back, come_back),
    ProfileFresh:    (leave,   leave_or_lose, leave_or_lose, leave_or_lose, leave_or_lose, leave_or_lose, leave_or_lose, leave,   leave),
    Adopted:         (adopt,   adopt_held,    adopt_held,    adopt_held,    adopt_held,    adopt,         adopt,         adopt,   adopt),
    MarkSeen:        (ignore,  mark,          ignore,        mark,          ignore,        ignore,        ignore,        ignore,  ignore),
    SnapshotTaken:   (ignore,  save,          save,          ignore,        ignore,        ignore,        ignore,        ignore,  ignore),
    DamageSeen:      (ignore,  doubt,         doubt,         doubt,         doubt,         doubt,         ignore,        ignore,  ignore),
    PageConnected:   (scan,    take,          take,          take,          take,          take_restored, ignore,        scan,    scan),
    PageAsksScan:    (ignore,  ask,           ask,           ask,           ask,           ask,           ignore,        ignore,  ignore),
    PageEmpty:       (ignore,  miss,          miss,          miss,          miss,          miss_restored, ignore,        ignore,  ignore),
    PageLoggedOut:   (ignore,  end,           end,           end,           end,           refuse,        ignore,        ignore,  ignore),
    PageQuiet:       (ignore,  ignore,        ignore,        ignore,        ignore,        ignore,        ignore,        ignore,  ignore),
    CleanedUp:       (leave,   leave,         leave,         leave,         leave,         leave,         leave,         leave,   leave),
}
# fmt: on
TABLE: dict[tuple[Standing, type[Event]], Rule] = {
    (standing, event): rule
    for event, rules in ROWS.items()
    for standing, rule in zip(COLUMNS, rules, strict=True)
}


def decide(state: LoginState, event: Event, now: float) -> Outcome:
    """The next state and what is to be done. ``now`` is monotonic, in seconds."""
    if isinstance(event, PageQuiet) and event.marks and not state.shown:
        state = replace(state, shown=True)
    return TABLE[state.standing, type(event)](state, event, now)
