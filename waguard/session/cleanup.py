"""Everything of a client gone: step by step, each with its outcome."""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from waguard.core.catalogue import mistake
from waguard.core.login import events
from waguard.core.model import Stage
from waguard.core.shown import Step
from waguard.core.undo import Deed
from waguard.errors import NotProvedGone, WaguardError
from waguard.session.ending import Ending
from waguard.session.instance import Instance
from waguard.session.login import ClientLogin
from waguard.session.memory import Memory
from waguard.session.transfer import Transfer
from waguard.session.undo import Acts
from waguard.session.values import Values
from waguard.system import shortage
from waguard.system.deadline import within
from waguard.system.threads import in_thread


class _Skipped(Exception):
    """A step that could not be done and need not be."""


class Cleanup:
    def __init__(
        self,
        instance: Instance,
        login: ClientLogin,
        ending: Ending,
        transfer: Transfer,
        values: Values,
        acts: Acts,
    ) -> None:
        self._instance = instance
        self._transfer = transfer
        self._values = values
        self._acts = acts
        self._login = login
        self._ending = ending

    async def run(self) -> tuple[Sequence[Step], WaguardError | None]:
        """Everything of this client gone, its profile retired. Every step runs, whatever the others did.

        Returns what each step did, and why the processes could not be proved gone if they could not.
        """
        instance = self._instance
        profiles = instance.resources.profiles
        profile, values = None, ""
        resisted: list[WaguardError] = []

        async def forget() -> str | None:
            had = instance.memory.profile is not None
            instance.memory = Memory(attempt=instance.memory.attempt)
            return "" if had else None

        async def close() -> str | None:
            if instance.browser is None:
                return None
            if problem := await self._ending.ask_to_close():
                raise _Skipped(problem)
            return ""

        async def end() -> str | None:
            try:
                async with within(Stage.KILL, instance.resources.config.deadlines.kill, "reaping leftovers"):
                    return "proved gone" if await self._ending.end_leftovers() else None
            except WaguardError as error:
                resisted.append(error)
                raise
            except OSError as error:
                resisted.append(
                    shortage.reached(error)
                    or NotProvedGone(f"The browser of {instance.code} could not be proved gone: {error}")
                )
                raise

        async def retire() -> str | None:
            nonlocal profile, values
            instance.check_tenure()
            _, profile = await in_thread(profiles.find, instance.code)
            values = await self._acts.begin(Deed.CLEANUP)
            async with instance.using:
                place = await in_thread(
                    partial(instance.custody.retire, "cleanup", has_login=self._login.held)
                )
            await self._login.tell(events.CleanedUp(), generation="", elsewhere={})
            await self._acts.settle()
            return None if place is None else f"retired as {place.name}"

        async def unlock() -> str | None:
            instance.custody.drop_lock()
            if profile is None:
                return None
            await in_thread(profiles.drop_lock, profile)
            return "released"

        async def delete() -> str | None:
            instance.check_tenure()
            deleted = await self._transfer.clear()
            return None if deleted is None else f"{deleted} deleted" if deleted else ""

        works = {
            "memory": forget,
            "browser": close,
            "tree": end,
            "profile": retire,
            "values": lambda: self._values.retire(values),
            "files": delete,
            "lock": unlock,
        }
        steps = [await self._take(name, work) for name, work in works.items()]
        instance.memory = Memory()
        return steps, resisted[0] if resisted else None

    async def _take(self, name: str, work: Callable[[], Awaitable[str | None]]) -> Step:
        step, began = Step(name), time.monotonic()
        try:
            detail = await work()
            step.outcome, step.detail = ("nothing", "") if detail is None else ("done", detail)
        except _Skipped as skipped:
            step.outcome, step.detail = "skipped", str(skipped)
        except Exception as error:  # noqa: BLE001 (every step runs, whatever the others did)
            if not isinstance(error, OSError) and shortage.known(error) is None:
                self._instance.publish("internal.error", **mistake(f"cleanup.{name}", error))
            step.outcome, step.detail = "failed", getattr(error, "message", repr(error))
        step.ms = round((time.monotonic() - began) * 1000, 1)
        self._instance.publish(
            "cleanup.step",
            level="error" if step.outcome == "failed" else "info",
            step=step.step,
            outcome=step.outcome,
            duration_ms=step.ms,
            detail=step.detail or None,
        )
        return step
