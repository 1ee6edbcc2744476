"""The brain of one session: ``decide(state, event, now, policy) -> (state, orders)``. No I/O, no clock, no chance.

Every pair of process state and event has one rule in `TABLE`. What comes late is dropped before the
table is asked.
"""

from waguard.core.health.faults import GONE, Fault
from waguard.core.health.plans import Remedy
from waguard.core.model import Process
from waguard.core.session.events import (
    Adopted,
    Answer,
    BrowserExited,
    Cleaned,
    CleanupAsked,
    ConnectAsked,
    DisconnectAsked,
    Event,
    Fact,
    Failed,
    Found,
    Gone,
    Held,
    LoginLost,
    NotCured,
    NotGone,
    PageRead,
    Prepared,
    Recovered,
    RecycleAsked,
    RestartAsked,
    RestEnded,
    RestoreAsked,
    ReturnAsked,
    Started,
    Unreachable,
    WaitEnded,
)
from waguard.core.session.lifecycle import (
    again,
    begin,
    clean,
    clean_once,
    cleaned,
    come_back,
    give_up,
    gone,
    hold,
    join,
    launch,
    not_gone,
    open_page,
    recycle,
    restart,
    resume,
    stay_down,
    stop,
    take_over,
    use,
)
from waguard.core.session.page import note
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.rules import Outcome, Rule, ignore
from waguard.core.session.state import State
from waguard.core.session.treatment import treat

COLUMNS = (
    Process.DOWN,
    Process.PREPARING,
    Process.STARTING,
    Process.UP,
    Process.STOPPING,
    Process.BACKOFF,
    Process.FAILED,
)


# fmt: off
ROWS: dict[type[Event], tuple[Rule, ...]] = {
    #                 down       preparing  starting   up         stopping    backoff    failed
    ConnectAsked:    (begin,     join,      join,      use,       resume,     begin,     begin),
    RestoreAsked:    (begin,     join,      join,      use,       resume,     begin,     begin),
    RestartAsked:    (begin,     join,      join,      restart,   resume,     begin,     begin),
    DisconnectAsked: (stay_down, stop,      stop,      stop,      stay_down,  stop,      stop),
    CleanupAsked:    (clean,     clean,     clean,     clean,     clean_once, clean,     clean),
    Prepared:        (ignore,    launch,    ignore,    ignore,    ignore,     ignore,    ignore),
    Started:         (ignore,    ignore,    open_page, ignore,    ignore,     ignore,    ignore),
    ReturnAsked:     (come_back, ignore,    ignore,    ignore,    ignore,     ignore,    ignore),
    Adopted:         (take_over, ignore,    ignore,    ignore,    ignore,     ignore,    ignore),
    RecycleAsked:    (ignore,    ignore,    ignore,    recycle,   ignore,     ignore,    ignore),
    Held:            (ignore,    hold,      ignore,    ignore,    ignore,     ignore,    ignore),
    Failed:          (ignore,    give_up,   give_up,   give_up,   ignore,     ignore,    ignore),
    Unreachable:     (ignore,    ignore,    ignore,    treat,     ignore,     ignore,    ignore),
    PageRead:        (ignore,    ignore,    ignore,    note,      ignore,     ignore,    ignore),
    LoginLost:       (ignore,    ignore,    ignore,    treat,      ignore,    ignore,    ignore),
    Found:           (ignore,    ignore,    ignore,    treat,     ignore,     ignore,    ignore),
    BrowserExited:   (ignore,    ignore,    give_up,   treat,     ignore,     ignore,    ignore),
    Recovered:       (ignore,    ignore,    ignore,    treat,     ignore,     ignore,    ignore),
    NotCured:        (ignore,    ignore,    ignore,    treat,     ignore,     ignore,    ignore),
    Gone:            (ignore,    ignore,    ignore,    ignore,    gone,       ignore,    ignore),
    NotGone:         (ignore,    ignore,    ignore,    ignore,    not_gone,   ignore,    ignore),
    Cleaned:         (ignore,    ignore,    ignore,    ignore,    cleaned,    ignore,    ignore),
    RestEnded:       (ignore,    ignore,    ignore,    treat,     ignore,     ignore,    ignore),
    WaitEnded:       (ignore,    ignore,    ignore,    ignore,    ignore,     again,     again),
}
# fmt: on
TABLE: dict[tuple[Process, type[Event]], Rule] = {
    (process, event): rule
    for event, rules in ROWS.items()
    for process, rule in zip(COLUMNS, rules, strict=True)
}


def decide(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The next state and what is to be done. ``now`` is monotonic, in seconds."""
    if isinstance(event, Fact) and (event.epoch != state.epoch or _late(state, event)):
        return state, ()
    return TABLE[state.process, type(event)](state, event, now, policy)


def _late(state: State, fact: Fact) -> bool:
    """Whether it is about an earlier remedy or rest, or about the page that a reload under way leaves behind."""
    if not isinstance(fact, Answer) or fact.step == state.step:
        return False
    if isinstance(fact, NotCured | RestEnded):
        return True
    told_once = {*GONE, Fault.PAGE_CRASHED}  # of any page
    crashed = isinstance(fact, Found) and fact.finding.fault in told_once
    return state.treatment is not None and state.treatment.remedy is Remedy.RELOAD and not crashed
