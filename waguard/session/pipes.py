"""The pipes of a launch, which the service manager keeps for the next daemon: by which names, and whose they are."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from waguard.browser.launch import PIPES, PROXY, Browser
from waguard.core.model import ClientCode
from waguard.sandbox import reaper
from waguard.system.systemd import Manager


class Pipes:
    """Those of one client's browser, with the service manager."""

    def __init__(self, code: ClientCode, manager: Manager) -> None:
        self._code = code
        self._manager = manager

    def keep(self, launch: reaper.LaunchRecord, browser: Browser) -> None:
        self._manager.keep(self._named(launch, browser))

    def pass_on(self, launch: reaper.LaunchRecord, browser: Browser) -> bool:
        """Whether the next daemon will have them."""
        return self._manager.pass_on(self._named(launch, browser))

    def take(self, launch: reaper.LaunchRecord) -> dict[str, int]:
        """By `PIPES` and `PROXY`: those that an earlier daemon has left us."""
        names = pipe_names(self._code, launch).items()
        return {pipe: fd for pipe, name in names if (fd := self._manager.take(name)) is not None}

    def drop(self, launch: reaper.LaunchRecord) -> None:
        for name in pipe_names(self._code, launch).values():
            self._manager.drop(name)

    def _named(self, launch: reaper.LaunchRecord, browser: Browser) -> Mapping[str, int]:
        fds = browser.pipes()
        return {name: fds[pipe] for pipe, name in pipe_names(self._code, launch).items() if pipe in fds}


def pipe_names(code: ClientCode, launch: reaper.LaunchRecord) -> Mapping[str, str]:
    """By `PIPES` and `PROXY`: what the service manager knows the launch's pipes by.

    Short, since all names of all launches have to fit into one variable; one of them tells whose launch it is.
    """
    names = {pipe: f"{launch.token}.{pipe[0]}" for pipe in (*PIPES, PROXY)}
    return names | {"stderr": f"{names['stderr']}.{code}"}


def kept_names(code: ClientCode, names: Sequence[str]) -> Collection[str]:
    """Those of them that are of a launch of this client's."""
    launch = kept_launch(code, names)
    return () if launch is None else pipe_names(code, launch).values()


def kept_launch(code: ClientCode, names: Iterable[str]) -> reaper.LaunchRecord | None:
    """What the names of kept pipes tell of a launch of this client's: enough to end it."""
    form = re.compile(rf"([0-9a-f]+)\.s\.{code}")
    found = (one[1] for name in names if (one := form.fullmatch(name)))
    return next((reaper.LaunchRecord(token, "", "", 0.0) for token in found), None)
