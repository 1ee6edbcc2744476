"""Addresses of pages. Pure."""

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def same_origin(one: str, other: str) -> bool:
    """Whether both are of the same scheme, host and port."""
    return _origin(one) == _origin(other)


def elsewhere(address: str, home: str) -> bool:
    """Whether this is a page of the web that is not of the same origin as ``home``."""
    return address.startswith(("http:", "https:")) and not same_origin(address, home)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return url, None, None
