"""The cgroup of a launch: what it takes is bounded there, what the kernel ends of it is known, and nothing is left in it."""

import threading

from waguard.browser.launch import Browser
from waguard.sandbox import reaper
from waguard.sandbox.cgroup import Kills
from waguard.session.instance import Instance
from waguard.system.threads import Kind, in_thread


class Enclosure:
    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._kills = Kills()
        """As of the last look."""

    async def take(self, launch: reaper.LaunchRecord, browser: Browser, memory_max_mb: int) -> None:
        """Give the launch a cgroup of its own; without one it goes on as well."""
        self._kills = Kills()
        if (cgroups := self._instance.resources.cgroups) is None:
            return
        try:
            await in_thread(
                cgroups.take,
                self._instance.code,
                launch.token,
                browser.run,
                launch.processes,
                memory_max_mb,
                kind=Kind.MACHINE,
            )
        except OSError as error:
            self._instance.publish("cgroup.failed", error=str(error))

    async def short_of_memory(self) -> str:
        """What the kernel has ended of the browser for want of memory since it was asked last; empty if nothing."""
        if (cgroups := self._instance.resources.cgroups) is None or (
            launch := self._instance.record.launch
        ) is None:
            return ""
        before = self._kills
        self._kills = now = await in_thread(
            cgroups.leaf(self._instance.code, launch.token).kills, kind=Kind.MACHINE
        )
        if now.killed <= before.killed:
            return ""
        of_all = self._instance.resources.config.cgroup.memory_max_mb
        most = launch.settings.get("memory_max_mb", of_all)
        key = "cgroup.memory_max_mb" if most == of_all else "the client's memory_max_mb"
        where = f"at {key} = {most}" if now.full > before.full else "since the machine has no more"
        return f"the kernel ended one of its processes {where}"

    async def clear(self, launch: reaper.LaunchRecord) -> None:
        """Whatever is left in the launch's cgroup is killed and proved gone; the caller sets the deadline."""
        if (cgroups := self._instance.resources.cgroups) is None:
            return
        stop = threading.Event()
        try:
            leaf = cgroups.leaf(self._instance.code, launch.token)
            used = await in_thread(leaf.end, stop, stop=stop, kind=Kind.MACHINE)
        except OSError as error:
            self._instance.publish("cgroup.failed", error=str(error))
            return
        if used is not None:
            self._instance.publish("cgroup.removed", cpu_s=used.cpu_s, memory_peak_mb=used.memory_peak_mb)
