"""What a session tells of itself after each event: to the bus, and to the gate what concerns the host, or people."""

import time

from waguard.admission.gate import Gate
from waguard.core.health.faults import FOR_A_PERSON
from waguard.core.health.plans import Remedy
from waguard.core.model import Alert, Process, Reason, Wanted
from waguard.core.session.news import Known, news
from waguard.core.session.state import State, summary_of, usable
from waguard.session.instance import Instance
from waguard.session.login import ClientLogin

_UNREACHED = frozenset({Reason.OFFLINE, Reason.WRONG_PAGE})
_SCAN_NEEDED = {
    Reason.LOGGED_OUT: "The phone has unlinked this login, or WhatsApp has: somebody has to scan the new code.",
    Reason.DAMAGED: "The login was lost to damage, and no snapshot has it: somebody has to scan the new code.",
}


class Announcer:
    def __init__(self, instance: Instance, login: ClientLogin, gate: Gate) -> None:
        self._instance = instance
        self._login = login
        self._gate = gate
        self._changed = self._told = time.monotonic()

    @property
    def since(self) -> float:
        """Unix time of the last change of status, as the clock goes now, seconds."""
        return time.time() - (time.monotonic() - self._changed)

    def announce(self, before: State, after: State, why_not: str) -> None:
        """``why_not``: what kept a remedy from helping, where that is what has come."""
        now, memory = time.monotonic(), self._instance.memory
        if summary_of(before) != summary_of(after) or before.process != after.process:
            self._changed = now
        known = Known(self._told, memory.attempt_began, memory.stages, memory.how, why_not)
        for one in news(before, after, now, known):
            self._told = now if one.name == "session.changed" else self._told
            memory.attempt_began = 0.0 if one.name == "attempt.done" else memory.attempt_began
            self._instance.publish(one.name, level=one.level, **one.fields)
        self._tell_gate(after)

    def _tell_gate(self, after: State) -> None:
        code, gate = self._instance.code, self._gate
        gate.room.note(code, after.process)
        trouble = self._instance.proxy_trouble
        if after.process is not Process.UP or trouble:  # of the machine's network that says nothing
            gate.reaches(code, None)
        elif usable(after.link, after.reason) or after.reason in _UNREACHED:
            gate.reaches(code, after.reason not in _UNREACHED)
        gate.suffers(code, after.treatment.finding.fault if after.treatment else None)
        failed = after.process is Process.FAILED and after.failure is not None
        text = f"{code} rests: {after.failure.message}" if failed and after.failure else ""
        gate.alerts.set(Alert.SESSION_FAILED, text, code)
        gate.alerts.set(Alert.PROXY_FAILED, trouble if after.wanted is Wanted.UP else "", code)
        gate.alerts.set(Alert.PERSON_NEEDED, self._for_a_person(after), code)

    def _for_a_person(self, state: State) -> str:
        """What somebody has to do something about. A scan is needed until somebody has scanned, whatever else is found."""
        if state.wanted is Wanted.UP and (ended := self._login.state.ended) is not None:
            return _SCAN_NEEDED[ended]
        treatment = state.treatment
        if treatment is None or treatment.finding.fault not in FOR_A_PERSON:
            return ""
        first_tries = treatment.remedy and not treatment.rests and Remedy.DISMISS not in treatment.tried
        return "" if first_tries else treatment.finding.failure.message
