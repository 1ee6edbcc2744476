"""What the history comes to: how long connects take, what goes wrong, what helps, who is slow and why. Pure.

Made from the events that `waguard.history` keeps; what an older version has left out counts as not there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from waguard.core.learning import ENOUGH, quantile
from waguard.core.model import Stage


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of a client's, as it was kept."""

    id: int
    """Counts up."""
    at: float
    """Unix time, seconds."""
    client: str
    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds that half, nine tenths, and nearly all of so many do not exceed."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread | None":
        if not samples:
            return None
        return cls(len(samples), *(round(quantile(samples, q), 1) for q in (0.5, 0.9, 0.99)))


@dataclass(frozen=True, slots=True)
class StageStats:
    stage: str
    ms: Spread | None
    """None: it was never completed."""
    share: float
    """Of the time of all stages."""
    late: int
    """Deadlines that were missed."""


@dataclass(frozen=True, slots=True)
class AttemptStats:
    count: int
    usable: int
    failed: int
    called_off: int
    success_rate: float | None
    """Of those that were not called off; none if there are none."""
    ms: Spread | None
    """From the beginning until the page was usable."""
    stages: Sequence[StageStats]
    failures: Mapping[str, int]
    """By code, the most frequent first."""
    why: Mapping[str, int]
    """What the attempts were made for: ``connect``, ``recovery``, ..."""


@dataclass(frozen=True, slots=True)
class RemedyStats:
    remedy: str
    tried: int
    worked: int
    ms: Spread | None


@dataclass(frozen=True, slots=True)
class FaultStats:
    fault: str
    count: int
    recovered: int
    by_itself: int
    """Of the recovered: no remedy was needed."""
    detect: Spread | None
    """How long it had been so when it was found."""
    recover: Spread | None
    """From the finding until it was over."""
    remedies: Sequence[RemedyStats]


@dataclass(frozen=True, slots=True)
class Slow:
    """A client that is slower in a stage than the others."""

    client: str
    stage: str
    p90_ms: float
    others_ms: float
    """The median of what is the same for each of the others."""
    why: str
    """A sentence for people, without its full stop."""


@dataclass(frozen=True, slots=True)
class Stats:
    since: float
    """Unix time, seconds."""
    until: float
    client: str | None
    """Only of this one; none: of all."""
    attempts: AttemptStats
    faults: Sequence[FaultStats]
    slow: Sequence[Slow]


@dataclass(slots=True)
class Tried:
    remedy: str
    outcome: str
    duration_ms: float


@dataclass(slots=True)
class Episode:
    """A finding, and what became of it."""

    id: int
    at: float
    """Unix time, seconds."""
    client: str
    fault: str
    evidence: Sequence[str]
    lasted_ms: float
    """How long it had been so when it was found."""
    planned: Sequence[str]
    why: str
    """Why in this order."""
    tried: list[Tried] = field(default_factory=list)
    recovered_by: str | None = None
    """A remedy, or ``none`` if it passed by itself; null: it is not known to be over."""
    recovered_ms: float | None = None
    """Since the finding."""


def summary(happened: Sequence[Happening], since: float, until: float, client: str | None = None) -> Stats:
    """``happened``: all clients' events of that time, the oldest first; others are needed to compare with."""
    ours = [one for one in happened if client in {None, one.client}]
    slower = slow(happened)
    return Stats(
        since,
        until,
        client,
        _attempts(ours),
        _faults(episodes(ours)),
        [one for one in slower if client in {None, one.client}],
    )


def _attempts(happened: Iterable[Happening]) -> AttemptStats:
    outcomes: Counter[str] = Counter()
    why: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    late: Counter[str] = Counter()
    took: list[float] = []
    stages: dict[str, list[float]] = defaultdict(list)
    for one in happened:
        told = one.fields
        if one.name == "stage.late":
            late[str(told.get("stage"))] += 1
        if one.name != "attempt.done":
            continue
        outcome = str(told.get("outcome"))
        outcomes[outcome] += 1
        why[str(told.get("why"))] += 1
        for stage, ms in (told.get("stages") or {}).items():
            stages[stage].append(float(ms))
        if outcome == "usable":
            took.append(_ms(told))
        elif outcome == "failed":
            codes[str(told.get("code"))] += 1
    ended = outcomes["usable"] + outcomes["failed"]
    total = sum(map(sum, stages.values()))
    known = [stage.value for stage in Stage if stage.value in stages or stage.value in late]
    return AttemptStats(
        outcomes.total(),
        outcomes["usable"],
        outcomes["failed"],
        outcomes["called_off"],
        round(outcomes["usable"] / ended, 4) if ended else None,
        Spread.of(took),
        [
            StageStats(
                stage,
                Spread.of(stages[stage]),
                round(sum(stages[stage]) / total, 4) if total else 0.0,
                late[stage],
            )
            for stage in known
        ],
        dict(codes.most_common()),
        dict(why.most_common()),
    )


def episodes(happened: Iterable[Happening]) -> Sequence[Episode]:
    """The findings, each with the remedies and the recovery that followed it, the oldest first."""
    found: list[Episode] = []
    latest: dict[tuple[str, str], Episode] = {}
    for one in happened:
        told = one.fields
        fault = str(told.get("fault"))
        episode = latest.get((one.client, fault))
        if one.name == "health.finding":
            episode = Episode(
                one.id,
                one.at,
                one.client,
                fault,
                tuple(told.get("evidence") or ()),
                float(told.get("lasted_ms") or 0.0),
                tuple(told.get("remedies") or ()),
                str(told.get("why") or ""),
            )
            found.append(episode)
            latest[one.client, fault] = episode
        elif one.name == "health.remedy" and episode is not None:
            episode.tried.append(Tried(str(told.get("remedy")), str(told.get("outcome")), _ms(told)))
        elif one.name == "health.recovered" and episode is not None:
            episode.recovered_by, episode.recovered_ms = str(told.get("remedy")), _ms(told)
            del latest[one.client, fault]
    return found


def _faults(found: Iterable[Episode]) -> Sequence[FaultStats]:
    """The most frequent first."""
    by_fault: dict[str, list[Episode]] = defaultdict(list)
    for episode in found:
        by_fault[episode.fault].append(episode)
    return [
        FaultStats(
            fault,
            len(ones),
            sum(one.recovered_by is not None for one in ones),
            sum(one.recovered_by == "none" for one in ones),
            Spread.of([one.lasted_ms for one in ones]),
            Spread.of([one.recovered_ms for one in ones if one.recovered_ms is not None]),
            _remedies([tried for one in ones for tried in one.tried]),
        )
        for fault, ones in sorted(by_fault.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _remedies(tried: Iterable[Tried]) -> Sequence[RemedyStats]:
    """What was called off says nothing."""
    by_remedy: dict[str, list[Tried]] = defaultdict(list)
    for one in tried:
        if one.outcome != "called_off":
            by_remedy[one.remedy].append(one)
    return [
        RemedyStats(
            remedy,
            len(ones),
            sum(one.outcome == "cured" for one in ones),
            Spread.of([one.duration_ms for one in ones]),
        )
        for remedy, ones in sorted(by_remedy.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


# --- who is slow ------------------------------------------------------------------------------------------

_TIMES, _BY_MS = 2.0, 500.0
"""Slow is who takes so many times as long as the others, and so much longer."""
_CAUSES = {
    Stage.ADMIT: "others were starting: see limits.concurrent_starts",
    Stage.PREPARE: "its profile is large to check, or was restored",
    Stage.START: "its browser is slow to come up: a large profile, or a machine that is busy when it starts",
    Stage.OPEN: "its page is slow to load: many chats, or a slow network",
}


def slow(happened: Iterable[Happening]) -> Sequence[Slow]:
    """Who is slower than the others, and in which stage; the slowest first. A deadline that was missed counts in full."""
    took: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    late: Counter[tuple[str, str]] = Counter()
    cold: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    for one in happened:
        told = one.fields
        if one.name == "stage.late":
            stage = str(told.get("stage"))
            took[stage][one.client].append(float(told.get("deadline_s") or 0.0) * 1000)
            late[one.client, stage] += 1
        elif one.name == "attempt.done":
            for stage, ms in (told.get("stages") or {}).items():
                took[stage][one.client].append(float(ms))
            begun[one.client] += 1
            cold[one.client] += told.get("profile") in {"fresh", "restored"}
    found = []
    for stage, cause in _CAUSES.items():
        nearly = {
            client: quantile(samples, 0.9)
            for client, samples in took[stage].items()
            if len(samples) >= ENOUGH
        }
        for client, own in nearly.items():
            if len(nearly) < 2:
                continue
            others = median(ms for other, ms in nearly.items() if other != client)
            if own < _TIMES * others or own - others < _BY_MS:
                continue
            why = f"90 % of {len(took[stage][client])} took up to {own / 1000:.1f} s, those of others {others / 1000:.1f} s"
            if missed := late[client, stage]:
                why += f", and {missed} missed the deadline"
            if stage is Stage.OPEN and 2 * cold[client] > begun[client]:
                cause = "most begin with an empty or a restored profile, so with cold caches"  # noqa: PLW2901
            found.append(Slow(client, stage.value, round(own, 1), round(others, 1), f"{why}; {cause}"))
    return sorted(found, key=lambda one: one.others_ms - one.p90_ms)


def _ms(told: Mapping[str, Any]) -> float:
    return float(told.get("duration_ms") or 0.0)
