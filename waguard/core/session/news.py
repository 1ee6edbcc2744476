"""What a session announces of a step: a pure function of how it was before and how it is after."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from waguard.core.event_kind import Level
from waguard.core.health.plans import Treatment
from waguard.core.model import Link, Process
from waguard.core.session.state import State, summary_of, usable


@dataclass(frozen=True, slots=True)
class News:
    """One event, of the catalogue."""

    name: str
    level: Level | None = None
    """None: the usual one."""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """What the state does not say. Times are monotonic, seconds."""

    changed: float = 0.0
    """When `session.changed` was announced last."""
    attempt_began: float = 0.0
    """0: none is under way whose end was not announced."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds that each stage of the attempt took."""
    profile: str = ""
    why_not: str = ""
    """Why the last remedy did not help."""


def news(before: State, after: State, now: float, known: Known) -> Iterator[News]:
    """In the order in which it is announced; ``now`` is monotonic."""
    if _shown(before) != _shown(after):
        yield _changed(before, after, _ms(now - known.changed))
    if after.failure is not None and after.failure is not before.failure:
        failure = after.failure
        said = {
            "code": failure.code,
            "error": failure.message,
            "stage": failure.stage.value if failure.stage else None,
        }
        yield News("session.failure", fields={**dict(failure.details), **said})
    was, treatment = before.treatment, after.treatment
    if was is not None and was != treatment:
        yield from _outcome(was, before, after, now, known.why_not)
    if treatment is not None and (was is None or was.finding.fault is not treatment.finding.fault):
        found = {
            "fault": treatment.finding.fault.value,
            "evidence": list(treatment.finding.evidence),
            "lasted_ms": _ms(treatment.finding.lasted_s),
            "remedies": [one.value for one in treatment.plan],
            "why": treatment.why,
        }
        yield News("health.finding", fields=found)
    yield from _attempt(after, now, known)


def _shown(state: State) -> tuple[object, ...]:
    return summary_of(state), state.wanted, state.process, state.link, state.reason


def _changed(before: State, after: State, duration_ms: float) -> News:
    alarming = after.link is Link.LOST or after.process is Process.FAILED
    fields = {
        "status": summary_of(after).value,
        "wanted": after.wanted.value,
        "process": after.process.value,
        "link": after.link.value,
        "reason": after.reason.value if after.reason else None,
        "was": summary_of(before).value,
        "duration_ms": duration_ms,
    }
    return News("session.changed", "warning" if alarming else "info", fields)


def _outcome(was: Treatment, before: State, after: State, now: float, why_not: str) -> Iterator[News]:
    """What came of a remedy, and whether the session is well again."""
    treatment = after.treatment
    cured = treatment is None and after.well_since is not None and after.well_since != before.well_since
    fault, remedies = was.finding.fault.value, [one.value for one in was.tried]
    if was.remedy is not None and (
        treatment is None or (treatment.remedy, treatment.began) != (was.remedy, was.began)
    ):
        failed = treatment is not None or after.process is Process.FAILED
        tried = {
            "fault": fault,
            "remedy": was.remedy.value,
            "outcome": "cured" if cured else "failed" if failed else "called_off",
            "error": why_not or None,
            "duration_ms": _ms(now - was.began),
        }
        yield News("health.remedy", "info" if cured else "warning", tried)
        remedies.append(was.remedy.value)
    if cured:
        well = {
            "fault": fault,
            "remedy": was.remedy.value if was.remedy is not None else "none",
            "remedies": remedies,
            "duration_ms": _ms(now - was.found),
        }
        yield News("health.recovered", fields=well)


def _attempt(after: State, now: float, known: Known) -> Iterator[News]:
    """How a start has ended, once: the page was usable, it failed, or somebody called it off."""
    in_use = after.process is Process.UP and usable(after.link, after.reason)
    ended = after.process not in {Process.PREPARING, Process.STARTING, Process.UP}
    if not known.attempt_began or not (in_use or ended):
        return
    failure = None if in_use else after.failure
    fields = {
        "why": after.cause.value,
        "outcome": "usable" if in_use else "failed" if failure else "called_off",
        "link": after.link.value,
        "code": failure.code if failure else None,
        "stage": failure.stage.value if failure and failure.stage else None,
        "duration_ms": _ms(now - known.attempt_began),
        "stages": dict(known.stages),
        "profile": known.profile or None,
    }
    yield News("attempt.done", "info" if in_use else "warning", fields)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
