"""The remedies that leave the browser up, one function each. When which is tried is not decided here.

Signals go to processes of this browser's own sandbox, each by its identity. What a process is for is told by its command
line, which a hostile one could write over: it would only lead us to another process of the same sandbox.
"""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from waguard.browser.page import Page
from waguard.core.health.faults import Fault
from waguard.core.health.plans import Remedy
from waguard.errors import PageFailed
from waguard.health.probes.census import GPU, NETWORK, RENDERER, Member, Members
from waguard.sandbox.identity import Handle, Identity
from waguard.system import host


@dataclass(frozen=True, slots=True)
class Target:
    """The browser that is cured."""

    page: Page
    url: str
    members: Members
    silent: bool
    """Its page does not answer."""
    click: Callable[[str], str]
    """The expression that clicks this button of its page's."""


async def apply(remedy: Remedy, fault: Fault, target: Target) -> None:
    """Raises `PageFailed` if it could not be applied. The caller sets the deadline, and sees whether it helped."""
    await _REMEDIES[remedy](fault, target)


async def _go_on(_fault: Fault, target: Target) -> None:
    # To one that crashes it means something else: see `waguard.sandbox.freeze`.
    await _signal(
        target, signal.SIGCONT, lambda one: one.row.state in "Tt" and not host.crashing(one.row.pid)
    )


async def _terminate(_fault: Fault, target: Target) -> None:
    await target.page.terminate()


async def _reload_qr(_fault: Fault, target: Target) -> None:
    if await target.page.look(target.click("fresh_codes")) is not True:
        raise PageFailed("The page has no button for fresh codes.")


async def _dismiss(_fault: Fault, target: Target) -> None:
    if await target.page.look(target.click("notice")) is not True:
        raise PageFailed("The dialog has no button that is known.")


async def _renew(fault: Fault, target: Target) -> None:
    role = {Fault.NETWORK_HUNG: NETWORK, Fault.GPU_HUNG: GPU}[fault]
    await _signal(target, signal.SIGKILL, lambda one: one.role == role)


def ends_renderer(fault: Fault, *, silent: bool) -> bool:
    """Whether a reload does, before it loads the page again."""
    # A navigation waits for the renderer that it leaves, and after that nothing can end its script any more.
    return (silent and fault is not Fault.PAGE_CRASHED) or fault is Fault.MEMORY_HIGH


async def _reload(fault: Fault, target: Target) -> None:
    if ends_renderer(fault, silent=target.silent):
        target.page.crashed.clear()
        await _signal(target, signal.SIGKILL, lambda one: one.role == RENDERER)
        await target.page.crashed.wait()  # a navigation that begins before would be aborted
        target.page.abandon()
    await target.page.open(target.url)


_REMEDIES: Mapping[Remedy, Callable[[Fault, Target], Awaitable[None]]] = {
    Remedy.CONTINUE: _go_on,
    Remedy.TERMINATE: _terminate,
    Remedy.DISMISS: _dismiss,
    Remedy.RELOAD_QR: _reload_qr,
    Remedy.RENEW: _renew,
    Remedy.RELOAD: _reload,
}


async def _signal(target: Target, number: signal.Signals, meant: Callable[[Member], bool]) -> None:
    members = [one for one in await target.members() if meant(one)]
    if not members:
        raise PageFailed("The process that this is meant for is not there any more.")
    for one in members:
        handle = Handle.open(Identity(one.row.pid, one.row.start_ticks, host.boot_id()))
        if handle is not None:
            try:
                handle.send(number)
            finally:
                handle.close()
