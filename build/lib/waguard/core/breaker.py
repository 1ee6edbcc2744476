"""Whether the host lets browsers start: its own troubles are not found out by each client again. Pure.

Closed, everybody may. It opens when starts fail with several clients and with nobody in between, or when too many
browsers start by themselves in too little time. Then one at a time may try, the next one later each time.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    clients: int = 2
    """Start failures of so many different clients in a row open it."""
    base_s: float = 5.0
    """From the opening to the first trial; twice as long each time."""
    max_s: float = 300.0
    trial_s: float = 30.0
    """A trial that has not ended by then is not waited for."""
    storm: int = 60
    """So many starts that nobody asked for ..."""
    storm_s: float = 60.0
    """... within so many seconds, and the next ones wait."""


@dataclass(frozen=True, slots=True)
class Breaker:
    failed: frozenset[str] = frozenset()
    """Clients whose starts have failed since the last one that went well."""
    why: str = ""
    """Why it is open; empty: it is closed."""
    trials: int = 0
    next_trial: float = 0.0
    """Monotonic, seconds."""
    starts: tuple[float, ...] = ()
    """When browsers were started that nobody had asked for."""


def failed(
    breaker: Breaker, client: str, why: str, now: float, policy: BreakerPolicy, *, sure: bool
) -> Breaker:
    """A start has failed; ``sure``: it is known to be the host's fault."""
    clients = breaker.failed | {client}
    if not breaker.why and not sure and len(clients) < policy.clients:
        return replace(breaker, failed=clients)
    wait = min(policy.max_s, policy.base_s * 2 ** min(breaker.trials, 32))
    return replace(
        breaker, failed=clients, why=breaker.why or why, trials=breaker.trials + 1, next_trial=now + wait
    )


def started(breaker: Breaker) -> Breaker:
    """A browser has started well: closed."""
    return Breaker(starts=breaker.starts)


def passes(breaker: Breaker, now: float, policy: BreakerPolicy, *, asked: bool) -> tuple[Breaker, float]:
    """Whether one may start now: the seconds to wait are 0 then. ``asked``: somebody waits for it.

    While it is open the one that passes is the trial; the next one passes when that has ended, or has taken too long.
    """
    recent = tuple(at for at in breaker.starts if now - at < policy.storm_s)
    breaker = replace(breaker, starts=recent)
    if breaker.why:
        if now < breaker.next_trial:
            return breaker, breaker.next_trial - now
        return replace(breaker, next_trial=now + policy.trial_s), 0.0
    if asked:
        return breaker, 0.0
    if len(recent) >= policy.storm:
        return breaker, recent[-policy.storm] + policy.storm_s - now
    return replace(breaker, starts=(*recent, now)), 0.0
