"""What a browser asks its proxy for, as the forwarder passes it on: heads of HTTP/1.1 and messages of SOCKS 5. Pure."""

import base64
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate"}
)
"""Headers that are for the next hop alone."""
_LINE = re.compile(r"[!-~]+ [!-~]+ HTTP/1\.[01]")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r|$)")
SOCKS_FAILED = {
    1: "it failed",
    2: "its rules forbid it",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the connection was refused",
    6: "it took too long",
    7: "it knows no such command",
    8: "it knows no such address",
}
"""RFC 1928, 6."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a browser has asked for."""

    method: str
    target: str
    host: str
    port: int
    headers: Sequence[str]
    """Lines, without those for the next hop."""

    @property
    def tunnels(self) -> bool:
        return self.method == "CONNECT"

    @classmethod
    def of(cls, head: bytes) -> "Asked":
        """Raises `ValueError`."""
        line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        if not _LINE.fullmatch(line):
            raise ValueError("this is no request to a proxy")
        method, target, _ = line.split(" ")
        tunnels = method == "CONNECT"
        parts = urlsplit(f"//{target}" if tunnels else target)
        port = parts.port if tunnels or parts.port is not None else 80
        if not parts.hostname or not port or parts.scheme != ("" if tunnels else "http"):
            raise ValueError("this is no request to a proxy")
        return cls(method, target, parts.hostname, port, _kept(lines))

    def to_proxy(self, credentials: str) -> bytes:
        """The head for an HTTP proxy; ``credentials``: see `basic`. One request a connection, but for a tunnel."""
        own = [f"Proxy-Authorization: {credentials}"] if credentials else []
        own += [] if self.tunnels else ["Connection: close"]
        return _head(f"{self.method} {self.target} HTTP/1.1", [*self.headers, *own])

    def to_origin(self) -> bytes:
        """The head for the server itself, behind a proxy that knows no HTTP."""
        parts = urlsplit(self.target)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return _head(f"{self.method} {path} HTTP/1.1", [*self.headers, "Connection: close"])


def _kept(lines: Sequence[str]) -> Sequence[str]:
    return [one for one in lines if one.partition(":")[0].strip().lower() not in _HOP]


def _head(line: str, headers: Sequence[str]) -> bytes:
    return ("\r\n".join([line, *headers]) + "\r\n\r\n").encode("latin-1")


def basic(user: str, password: str) -> str:
    """RFC 7617; empty for no user."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user else ""


def status_of(head: bytes) -> int:
    """Of an answer. Raises `ValueError`."""
    if (found := _STATUS.match(head)) is None:
        raise ValueError("it answers no HTTP")
    return int(found[1])


def closing(head: bytes) -> bytes:
    """An answer's head that says that nothing follows: the next request is to come on a connection of its own."""
    line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    return _head(line, [*_kept(lines), "Connection: close"])


def socks_greeting(user: str) -> bytes:
    """RFC 1928, 3: by a password if there is a user, else by nothing."""
    return bytes([5, 1, 2 if user else 0])


def socks_login(user: str, password: str) -> bytes:
    """RFC 1929."""
    name, secret = user.encode(), password.encode()
    return bytes([1, len(name)]) + name + bytes([len(secret)]) + secret


def socks_connect(host: str, port: int) -> bytes:
    """RFC 1928, 4: names go out as they are, so that the proxy resolves them. Raises `ValueError`."""
    try:
        address = ipaddress.ip_address(host)
        where = bytes([1 if address.version == 4 else 4]) + address.packed
    except ValueError:
        name = host.encode("ascii")
        if len(name) > 255:
            raise ValueError("the name is too long") from None
        where = bytes([3, len(name)]) + name
    return b"\x05\x01\x00" + where + port.to_bytes(2, "big")
