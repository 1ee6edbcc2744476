"""The way out of a client's browser, where it has a proxy: its forwarder, whom that serves, and what is wrong with the proxy."""

import asyncio
import os
import socket
from functools import partial

from waguard.browser.forwarder import Forwarder, Upstream, door
from waguard.config.clients import Proxy
from waguard.config.put import password_of
from waguard.errors import SandboxFailed
from waguard.sandbox import Run
from waguard.session.instance import Instance
from waguard.system import host, shortage
from waguard.system.repeats import Repeats
from waguard.system.threads import Kind, in_thread

_LOOKS = 2
"""At a time: strangers, however many, leave threads to others."""


class WayOut:
    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._strangers = Repeats(5)
        self._looks = asyncio.Semaphore(_LOOKS)

    async def begin(self, proxy: Proxy | None) -> Forwarder | None:
        """For a launch with this one; None: it has no proxy. Raises `StorageFailed`, `SandboxFailed`."""
        self._instance.proxy_trouble = ""
        if proxy is None:
            return None
        upstream = await self._upstream(proxy)
        try:
            listening = door()
        except OSError as error:
            raise SandboxFailed(f"There is no port for the way to its proxy: {error.strerror}.") from None
        return await self._start(listening, upstream)

    async def take_over(self, fd: int) -> Forwarder | None:
        """That of a browser that an earlier daemon has started, for whose socket this is a copy; None: it has no proxy any more.

        Raises `StorageFailed`, `OSError`.
        """
        if (proxy := self._proxy) is None:
            return None
        upstream = await self._upstream(proxy)
        listening = socket.socket(fileno=os.dup(fd))
        listening.setblocking(False)
        return await self._start(listening, upstream)

    async def renew(self) -> None:
        """There may be other settings: what needs no other browser holds from here on. Raises `StorageFailed`."""
        browser = self._instance.browser
        if browser is not None and browser.forwarder is not None and (proxy := self._proxy) is not None:
            browser.forwarder.use(await self._upstream(proxy))

    @property
    def _proxy(self) -> Proxy | None:
        """Raises `StorageFailed`."""
        return self._instance.resources.settings.of(self._instance.code).proxy

    async def _upstream(self, proxy: Proxy) -> Upstream:
        """Raises `StorageFailed`."""
        trusted = self._instance.resources.config.browser.ca_file
        return Upstream(proxy.url, proxy.user, await password_of(proxy), trusted)

    async def _start(self, listening: socket.socket, upstream: Upstream) -> Forwarder:
        try:
            made = Forwarder(listening, upstream, self._is_ours, self._told)
        except RuntimeError:
            listening.close()
            raise shortage.no_process() from None
        try:
            await made.start()
        except BaseException:
            made.close()
            raise
        return made

    def _told(self, trouble: str) -> None:
        proxy = self._instance.resources.settings.known_of(self._instance.code).proxy
        where = proxy.url if proxy is not None else "that it was started with"
        self._instance.proxy_trouble = f"The proxy {where} {trouble}." if trouble else ""

    async def _is_ours(self, peer: tuple[str, int], own: tuple[str, int]) -> bool:
        """Whether a process of the browser holds the other end: no other program of this machine gets out by the client's proxy."""
        browser = self._instance.browser
        if browser is None:
            return False
        async with self._looks:
            held = await in_thread(partial(_holds, browser.run, peer, own), kind=Kind.MACHINE)
        if not held and (left_out := self._strangers.left_out("")) is not None:
            self._instance.publish("proxy.stranger", **({"left_out": left_out} if left_out else {}))
        return held


def _holds(run: Run, peer: tuple[str, int], own: tuple[str, int]) -> bool:
    inode = host.tcp_inode(peer, own)
    return inode is not None and any(host.has_socket(one.pid, inode) for one in run.members())
