"""What the history comes to: how long connects take, what goes wrong, what helps, who is slow and why. Pure.

Made from the events that `waguard.history.history` keeps; what an older version has left out, or is of another type than we write it,
counts as not there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from waguard.core.learning import ENOUGH, measured, quantile
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
    refused: int
    """Connects for which no attempt was made, since the host had no room or let no browser start."""
    success_rate: float | None
    """Of those that were not called off, and of the refused; none if there are none."""
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


def summary(happened: Iterable[Happening], since: float, until: float, client: str | None = None) -> Stats:
    """``happened``: all clients' events of that time, the oldest first; others are needed to compare with.

    They are looked at once each, so that they need not all be in memory.
    """
    attempts, found, durations = _Attempts(), _Episodes(), _Durations()
    for one in happened:
        durations.add(one)
        if client in {None, one.client}:
            attempts.add(one)
            found.add(one)
    slower = [one for one in durations.slow() if client in {None, one.client}]
    return Stats(since, until, client, attempts.stats(), _faults(found.all), slower)


class _Attempts:
    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._why: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._late: Counter[str] = Counter()
        self._refused = 0
        self._took: list[float] = []
        self._stages: dict[str, list[float]] = defaultdict(list)

    def add(self, one: Happening) -> None:
        told = one.fields
        if one.name == "stage.late":
            self._late[str(told.get("stage"))] += 1
        if one.name == "connect.refused":
            self._refused += 1
            self._codes[str(told.get("code"))] += 1
        if one.name != "attempt.done":
            return
        outcome = str(told.get("outcome"))
        self._outcomes[outcome] += 1
        self._why[str(told.get("why"))] += 1
        for stage, ms in _stages(told):
            self._stages[stage].append(ms)
        if outcome == "usable":
            self._took.append(_ms(told))
        elif outcome == "failed":
            self._codes[str(told.get("code"))] += 1

    def stats(self) -> AttemptStats:
        outcomes, stages, late = self._outcomes, self._stages, self._late
        ended = outcomes["usable"] + outcomes["failed"] + self._refused
        total = sum(map(sum, stages.values()))
        return AttemptStats(
            outcomes.total(),
            outcomes["usable"],
            outcomes["failed"],
            outcomes["called_off"],
            self._refused,
            round(outcomes["usable"] / ended, 4) if ended else None,
            Spread.of(self._took),
            [
                StageStats(
                    stage,
                    Spread.of(stages[stage]),
                    round(sum(stages[stage]) / total, 4) if total else 0.0,
                    late[stage],
                )
                for stage in Stage
                if stage in stages or stage in late
            ],
            dict(self._codes.most_common()),
            dict(self._why.most_common()),
        )


def episodes(happened: Iterable[Happening]) -> Sequence[Episode]:
    """The findings, each with the remedies and the recovery that followed it, the oldest first."""
    found = _Episodes()
    for one in happened:
        found.add(one)
    return found.all


class _Episodes:
    def __init__(self) -> None:
        self.all: list[Episode] = []
        self._open: dict[tuple[str, str], Episode] = {}
        """By client and fault."""

    def add(self, one: Happening) -> None:
        told = one.fields
        key = one.client, str(told.get("fault"))
        if one.name == "health.finding":
            episode = Episode(
                one.id,
                one.at,
                *key,
                _texts(told.get("evidence")),
                measured(told.get("lasted_ms")) or 0.0,
                _texts(told.get("remedies")),
                str(told.get("why") or ""),
            )
            self.all.append(episode)
            self._open[key] = episode
        elif key not in self._open:
            return
        elif one.name == "health.remedy":
            tried = Tried(str(told.get("remedy")), str(told.get("outcome")), _ms(told))
            self._open[key].tried.append(tried)
        elif one.name == "health.recovered":
            episode = self._open.pop(key)
            episode.recovered_by, episode.recovered_ms = str(told.get("remedy")), _ms(told)


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
_COLD = "most begin with an empty or a restored profile, so with cold caches"


def slow(happened: Iterable[Happening]) -> Sequence[Slow]:
    """Who is slower than the others, and in which stage; the slowest first. A deadline that was missed counts in full."""
    durations = _Durations()
    for one in happened:
        durations.add(one)
    return durations.slow()


class _Durations:
    """Of each stage at each client."""

    def __init__(self) -> None:
        self._took: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._late: Counter[tuple[str, str]] = Counter()
        self._cold: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()

    def add(self, one: Happening) -> None:
        told = one.fields
        if one.name == "stage.late":
            stage = str(told.get("stage"))
            self._took[stage][one.client].append((measured(told.get("deadline_s")) or 0.0) * 1000)
            self._late[one.client, stage] += 1
        elif one.name == "attempt.done":
            for stage, ms in _stages(told):
                self._took[stage][one.client].append(ms)
            self._begun[one.client] += 1
            self._cold[one.client] += str(told.get("profile")) in {"fresh", "restored"}

    def slow(self) -> Sequence[Slow]:
        found = []
        for stage in _CAUSES:
            took = self._took[stage]
            nearly = {
                client: quantile(samples, 0.9) for client, samples in took.items() if len(samples) >= ENOUGH
            }
            for client, own in nearly.items():
                others = median([ms for other, ms in nearly.items() if other != client] or [own])
                if own >= _TIMES * others and own - others >= _BY_MS:
                    why = self._why(client, stage, own, others)
                    found.append(Slow(client, stage.value, round(own, 1), round(others, 1), why))
        return sorted(found, key=lambda one: one.others_ms - one.p90_ms)

    def _why(self, client: str, stage: Stage, own: float, others: float) -> str:
        count = len(self._took[stage][client])
        why = f"90 % of {count} took up to {own / 1000:.1f} s, those of others {others / 1000:.1f} s"
        if missed := self._late[client, stage]:
            why += f", and {missed} missed the deadline"
        cold = stage is Stage.OPEN and 2 * self._cold[client] > self._begun[client]
        return f"{why}; {_COLD if cold else _CAUSES[stage]}"


def _stages(told: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    stages = told.get("stages")
    known = stages.items() if isinstance(stages, Mapping) else ()
    return ((stage, took) for stage, ms in known if (took := measured(ms)) is not None)


def _ms(told: Mapping[str, Any]) -> float:
    return measured(told.get("duration_ms")) or 0.0


def _texts(told: object) -> Sequence[str]:
    return tuple(map(str, told)) if isinstance(told, list | tuple) else ()
