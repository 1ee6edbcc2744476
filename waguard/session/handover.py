"""From one daemon to the next: a browser is left as it is, and the next daemon goes on with it."""

import os
import secrets
from contextlib import ExitStack
from functools import partial

from waguard.browser.launch import PIPES, PROXY, Browser
from waguard.core.login import events
from waguard.sandbox.adopt import adopt
from waguard.session.enclosure import Enclosure
from waguard.session.instance import Instance
from waguard.session.login import ClientLogin
from waguard.session.registry import Record, login_of
from waguard.session.transfer import Transfer
from waguard.session.way_out import WayOut
from waguard.system.threads import Kind, in_thread


class Handover:
    def __init__(
        self,
        instance: Instance,
        login: ClientLogin,
        enclosure: Enclosure,
        transfer: Transfer,
        way_out: WayOut,
    ) -> None:
        self._instance = instance
        self._transfer = transfer
        self._login = login
        self._enclosure = enclosure
        self._way_out = way_out

    async def adopt(self) -> bool:
        """Go on with the browser that an earlier daemon has brought up, if all that it takes is there; else its pipes are
        closed, and the rest is for `end_leftovers`. Raises `OSError`, `StorageFailed`.
        """
        instance, launch = self._instance, self._instance.record.launch
        if launch is None:
            return False
        with ExitStack() as useless:
            useless.callback(instance.pipes.drop, launch)
            fds = instance.pipes.take(launch)
            with ExitStack() as ours:
                for fd in fds.values():
                    ours.callback(os.close, fd)
                _, profile = await in_thread(instance.resources.profiles.find, instance.code)
                if not launch.page or not fds.keys() >= set(PIPES):
                    return False
                if profile is None or profile.generation != launch.generation:
                    return False
                forwarder = None
                if launch.settings.get("proxy"):
                    forwarder = await self._way_out.take_over(fds[PROXY]) if PROXY in fds else None
                    if forwarder is None:
                        return False
                    ours.callback(forwarder.close)
                if (run := await in_thread(adopt, launch, kind=Kind.MACHINE)) is None:
                    return False
                ours.pop_all()
                if PROXY in fds:
                    os.close(fds.pop(PROXY))
            instance.browser = await Browser.adopt(run, fds, launch.page, launch.target, forwarder)
            useless.pop_all()
        instance.pipes.keep(launch, instance.browser)  # what the one before us could not have kept
        await self._transfer.begin(instance.browser, launch)
        memory = instance.memory
        memory.attempt, memory.profile, memory.how = secrets.token_hex(4), profile, "kept"
        memory.version = launch.version
        await self._enclosure.short_of_memory()  # what is news starts here
        instance.custody.version = launch.version or instance.custody.version
        await self._login.tell(events.Adopted(taken=launch.accepted))
        instance.publish("session.adopted", profile=profile.generation, launched_at=launch.started_at)
        return True

    def leave(self) -> bool:
        """Give the browser up as it is, for the daemon that comes after this one; false: nobody could go on with it."""
        instance = self._instance
        browser, launch = instance.browser, instance.record.launch
        if browser is None or launch is None or not launch.page or not instance.recorded:
            return False
        if instance.custody.wiped():  # which the next daemon could not know
            return False
        if not browser.connected or not instance.pipes.pass_on(launch, browser):
            return False
        browser.close()
        instance.custody.let_go()
        instance.browser = None
        instance.publish("session.left")
        return True


async def find_profile(instance: Instance) -> Record:
    """See to it that the link to its profile is there, and that its record, which is returned, names it too.

    Raises `ProfileNotFound` if there is a login and nobody knows where, `StorageFailed`.
    """
    record = instance.record
    known = record.generation or (record.launch.generation if record.launch is not None else "")
    if what := await in_thread(partial(instance.custody.mend_link, known, has_login=login_of(record).held)):
        instance.publish("profile.link_mended", why=what)
    _, profile = await in_thread(instance.resources.profiles.find, instance.code)
    if (generation := profile.generation if profile is not None else "") != record.generation:
        await instance.save(generation=generation)
    return instance.record
