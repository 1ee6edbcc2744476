"""Webhooks: where events are posted to, which addresses that may be, and how a message is signed. Pure.

Messages are signed as https://github.com/standard-webhooks/standard-webhooks (version 1) has it.
"""

import base64
import hashlib
import hmac
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from waguard.core.access import ADMIN
from waguard.core.feed import Wish
from waguard.core.model import ClientCode
from waguard.errors import InvalidRequest

MOST = 20
"""Webhooks at a time."""
PREFIX = "whsec_"
"""Of each secret; base64 of `SECRET_BYTES` random bytes follows."""
SECRET_BYTES = 32
_EARLIER = 3
"""Secrets that a message is signed with beside the newest."""
_LONGEST = 2000
_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""As the last part of a host it is an address to whoever looks it up, for example 127.1."""
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_HOW = "Send for example https://crm.example/hooks/waguard."

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Secret:
    text: str = field(repr=False)
    until: float | None = None
    """Unix time, seconds: how long messages are signed with it too, where another has come in its place."""


@dataclass(frozen=True, slots=True)
class Webhook:
    id: str
    url: str = field(repr=False)
    """Its path and query may be a secret."""
    clients: tuple[str, ...]
    """Client codes; empty: all, and what is about none."""
    kinds: tuple[str, ...]
    """Names of events, or their first parts; empty: all."""
    secrets: tuple[Secret, ...]
    """The newest first."""
    created_at: float
    """Unix time, seconds."""
    created_by: str
    """The actor."""
    disabled: str = ""
    """Why nothing is sent; empty: it is."""

    @property
    def host(self) -> str:
        """What is logged of the address."""
        return urlsplit(self.url).netloc

    @property
    def named(self) -> Mapping[str, Any]:
        """As events name it."""
        return {"webhook": self.id, "host": self.host}

    @property
    def wish(self) -> Wish:
        """What it is told; a kind that this version does not know is none of it."""
        return Wish(ADMIN, frozenset(map(ClientCode, self.clients)), frozenset(self.kinds))

    def check(self, allowed: "Sequence[Network]") -> None:
        """Raises `InvalidRequest`."""
        check_url(self.url, allowed)
        Wish.of(ADMIN, [ClientCode(one) for one in self.clients], self.kinds)

    def rotated(self, secret: str, overlap_s: float, now: float) -> "Webhook":
        """With another secret; messages are signed with the earlier ones too for ``overlap_s`` seconds."""
        until = now + overlap_s
        left = [replace(one, until=min(one.until or math.inf, until)) for one in self.signing(now)]
        return replace(self, secrets=(Secret(secret), *(left[:_EARLIER] if overlap_s > 0 else ())))

    def signing(self, now: float) -> Sequence[Secret]:
        return [one for one in self.secrets if one.until is None or one.until > now]

    def headers(self, message: str, body: bytes, now: float) -> Mapping[str, str]:
        """Of a message, by its id, that is sent now."""
        signed = (signature(one.text, message, int(now), body) for one in self.signing(now))
        return {
            "Content-Type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": " ".join(signed),
        }


def new_secret(chance: bytes) -> str:
    return PREFIX + base64.b64encode(chance).decode()


def signature(secret: str, message: str, at: int, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.digest(key, f"{message}.{at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


# --- where to ---------------------------------------------------------------------------------------------


def check_url(url: str, allowed: Sequence[Network]) -> None:
    """Raises `InvalidRequest` for what is no address of a receiver, or one that is never sent to."""
    if len(url) > _LONGEST or not _CHARACTERS.fullmatch(url):
        raise InvalidRequest(
            f"url: is longer than {_LONGEST} characters, has a fragment, or characters that have to be escaped.",
            hint=_HOW,
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(f"url: {error}.", hint=_HOW) from None
    if parts.scheme not in {"https", "http"} or not host:
        raise InvalidRequest("url: is not an address that begins with https://.", hint=_HOW)
    if "@" in parts.netloc:
        raise InvalidRequest(
            "url: has a user or a password in it.",
            hint="Leave it out: the receiver knows by the signature who has sent it.",
        )
    address, labels = literal(host), host.removesuffix(".").split(".")
    if port == 0 or (address is None and (not all(labels) or _NUMBER.fullmatch(labels[-1]))):
        raise InvalidRequest(
            "url: has the port 0, a dot too many, or a number for its host that is no address.", hint=_HOW
        )
    here = host == "localhost" or (address is not None and address.is_loopback)
    if parts.scheme == "http" and not here:
        raise InvalidRequest(
            "url: begins with http://, where everybody on the way reads along.",
            hint="Use https://. Only a receiver on this machine may have http://.",
        )
    ours = (literal("127.0.0.1"), literal("::1")) if host == "localhost" else (address,)
    if not any(one is None or may_reach(one, parts.scheme, allowed) for one in ours):
        raise InvalidRequest(
            f"url: {host} is no public address.",
            hint="Name its network in webhooks.allowed_networks and restart the daemon, if the receiver is to be there.",
        )


def literal(host: str) -> Address | None:
    """The address that a host is; None: it is a name."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


def may_reach(address: Address, scheme: str, allowed: Sequence[Network]) -> bool:
    """Whether a message may be sent there: it is public, or in a network that is allowed; without TLS it stays on this machine."""
    inner = _inner(address)
    if scheme == "http" and not inner.is_loopback:
        return False
    return _is_public(inner) or any(one in network for network in allowed for one in (address, inner))


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def network(text: str) -> Network:
    """Raises `ValueError`."""
    return ip_network(text)
