"""What may help with a fault here and now: by the fault, by whether others suffer from it too, and by what there is to restore."""

from waguard.admission.gate import Gate
from waguard.core.health.faults import GONE, Fault, Finding
from waguard.core.health.plans import BY_COST, PLANS, REPLACING, Remedy
from waguard.core.model import Failure, Reading
from waguard.core.session import events
from waguard.session.instance import Instance
from waguard.session.login import ClientLogin
from waguard.whatsapp.page import ERROR_PAGE

_NETWORK = "most sessions are offline: the network is at fault"


class Plans:
    def __init__(self, instance: Instance, login: ClientLogin, gate: Gate) -> None:
        self._instance = instance
        self._login = login
        self._gate = gate
        self._fresh = instance.resources.config.health.fresh

    async def found(
        self, epoch: int, step: int, finding: Finding, reading: Reading | None, *, first: bool
    ) -> events.Found | events.BrowserExited:
        """A complaint as the table takes it; ``reading``: what the page showed last; ``first``: it is a new one."""
        plan, why = await self._plan(finding.fault, reading)
        kind = events.BrowserExited if finding.fault in GONE else events.Found
        snapshot = self._login.newest_snapshot if Remedy.RESTORE in plan else ""
        return kind(epoch, finding, plan, why, snapshot, again=not first, step=step)

    def unreachable(self, epoch: int, step: int, failure: Failure) -> events.Unreachable:
        """There is no way to the page: only what goes there again may help where nobody reaches WhatsApp."""
        plan, why = self._offline(no_way=True)
        return events.Unreachable(epoch, failure, plan, why, step=step)

    def _offline(self, *, no_way: bool) -> tuple[tuple[Remedy, ...], str]:
        if trouble := self._instance.proxy_trouble:
            return ((Remedy.RELOAD,) if no_way else ()), trouble
        if self._gate.network_down_with(self._instance.code):
            return ((Remedy.RELOAD,) if no_way else ()), _NETWORK
        return tuple(PLANS[Fault.OFFLINE]), BY_COST

    async def _plan(self, fault: Fault, reading: Reading | None) -> tuple[tuple[Remedy, ...], str]:
        """The cheapest first, and why nothing else."""
        code, gate = self._instance.code, self._gate
        plan = PLANS[fault]
        if fault is Fault.OFFLINE:
            return self._offline(no_way=reading is None or ERROR_PAGE in reading.signs)
        if fault is Fault.PAGE_UNREAD and not gate.alone(code, fault):
            return (), "other pages are not understood either: the page or its reader has changed"
        if REPLACING & set(plan):
            replace_it = gate.alone(code, fault)
            if fault is Fault.PAGE_NOT_LOADED:  # else it may load for nobody, and no profile is to blame
                replace_it = replace_it and gate.others_reach(code)
            snapshot = replace_it and await self._login.find_snapshot()
            empty = replace_it and (self._fresh or not self._login.state.may_be)
            allowed = {Remedy.RESTORE: snapshot, Remedy.FRESH: empty}
            plan = [one for one in plan if allowed.get(one, True)]
        return tuple(plan), BY_COST
