"""What was done to one client's profile because somebody wanted it: noted, settled, and found again to be taken back."""

import time
from dataclasses import asdict, dataclass, replace

from waguard.core.login import events
from waguard.core.undo import Act, Deed, happened, last
from waguard.errors import UndoRefused, WaguardError
from waguard.profile.generation import new_generation
from waguard.session.instance import Instance
from waguard.session.login import ClientLogin
from waguard.session.registry import Acted, Record, login_of
from waguard.session.value_files import count
from waguard.session.values import Values
from waguard.system.threads import Kind, in_thread


@dataclass(frozen=True, slots=True)
class Plan:
    """What an undo would bring back."""

    act: Act
    """The one that is taken back."""
    login: bool
    """The client was connected with it."""
    values: int
    """How many come back with it."""
    names: frozenset[str]
    """Of its login: see `identity.read`. Never to be logged."""
    current: str
    """Generation of what is there now, and would be put aside; empty if nothing is."""


class Acts:
    """The client's record has them."""

    def __init__(self, instance: Instance, login: ClientLogin, values: Values) -> None:
        self._instance = instance
        self._login = login
        self._values = values

    async def begin(self, what: Deed, back: str = "") -> str:
        """Before a profile is put aside; by which name its values are to be, if they go with it.

        Where there is no profile nothing is put aside, and the last act stays the last one. Raises `StorageFailed`, `UndoRefused`.
        """
        await self.settle()
        current, record = await self.current(), self._instance.record
        if back and (
            (act := last([one.act for one in record.acts], current)) is None or act.generation != back
        ):
            raise self._nothing("Something else has been done since.")
        values = new_generation() if what in {Deed.CLEANUP, Deed.UNDO} else ""
        if current or back:
            act = Act(what, time.time(), current, values, back)
            acted = Acted(act, record.origin, record.here, record.elsewhere)
            await self._instance.save(acts=(*record.acts[-1:], acted))
        return values

    async def settle(self) -> None:
        """Of an act that is noted and not known to be done: see whether it was, and do what is left of it. Raises `StorageFailed`."""
        acts = self._instance.record.acts
        if not acts or (act := acts[-1].act).done:
            return
        if not happened(act, await self.current()):
            await self._instance.save(acts=acts[:-1])
            return
        if act.what is Deed.UNDO:
            for taken_back in (one for one in acts if one.act.generation == act.back):
                await self._return(taken_back, act)
        done = replace(acts[-1], act=replace(act, done=True))
        await self._instance.save(acts=(done,) if act.generation else ())

    async def _return(self, taken_back: Acted, undo: Act) -> None:
        """The profile is back: so are its logins, as they stood, and its values."""
        was = Record(**asdict(taken_back.login), origin=taken_back.origin, elsewhere=taken_back.elsewhere)
        was = was.at(self._instance.origin)
        state = login_of(was)
        returned = events.ProfileReturned(state.standing, state.snapshot)
        await self._login.tell(returned, generation=undo.back, elsewhere=was.elsewhere)
        try:
            await self._values.bring_back(taken_back.act.values, undo.values)
        except WaguardError as error:  # no session stays down for what an app has noted
            self._instance.publish("values.not_returned", code=error.code, error=error.message)

    async def plan(self) -> Plan:
        """What an undo would do now; looks, and changes nothing. Raises `UndoRefused`, `ProfileTooNew`, `StorageFailed`."""
        instance, current = self._instance, await self.current()
        acts = instance.record.acts
        act = last([one.act for one in acts], current)
        if act is None:
            raise self._nothing("There is no cleanup, fresh, restore or import that could be taken back.")
        look = instance.custody.look_at_retired
        _, _, names = await in_thread(look, act.generation, kind=Kind.COPIES)
        aside = instance.resources.profiles.aside
        values = await in_thread(aside.find_values, instance.code, act.values)
        acted = next(one for one in acts if one.act == act)
        return Plan(
            act,
            acted.login.login,
            0 if values is None else await in_thread(count, values),
            names,
            current,
        )

    def _nothing(self, why: str) -> UndoRefused:
        hint = f"See which snapshots there are: waguard snapshots {self._instance.code}"
        return UndoRefused(why, hint=hint, reason="nothing")

    async def current(self) -> str:
        """The generation that the client has; empty if none. Raises `StorageFailed`."""
        _, profile = await in_thread(self._instance.resources.profiles.find, self._instance.code)
        return profile.generation if profile is not None else ""
