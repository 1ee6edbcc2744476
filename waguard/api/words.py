"""What a hint tells somebody to do, as a request or as a command.

Inside the daemon a session's verb is written as on the command line, ``waguard connect demo``: who asks over HTTP is told
the request, and the command line makes the command of it again. What has no route, such as ``waguard doctor``, is for the
daemon's host and stays as it is.
"""

import re

_VERBS = {
    "connect": ("POST", "/connect"),
    "restart": ("POST", "/restart"),
    "disconnect": ("POST", "/disconnect"),
    "cleanup": ("POST", "/cleanup"),
    "undo": ("POST", "/undo"),
    "status": ("GET", ""),
    "history": ("GET", "/history"),
    "snapshots": ("GET", "/snapshots"),
    "snapshot": ("POST", "/snapshots"),
    "values": ("GET", "/values"),
    "settings": ("GET", "/settings"),
}
_REQUESTS = {request: verb for verb, request in _VERBS.items()}
_CODE = "[A-Za-z0-9][A-Za-z0-9_-]*"
_COMMAND = re.compile(rf"\bwaguard ({'|'.join(_VERBS)}) ({_CODE})( --fresh)?(?![\w/-])")
_REQUEST = re.compile(rf"\b(GET|POST) /v1/sessions/({_CODE})(/[a-z]+)?(\?fresh=true)?(?![\w/?-])")


def in_http(text: str) -> str:
    """Commands as the requests that they make."""

    def request(found: re.Match[str]) -> str:
        method, path = _VERBS[found[1]]
        return f"{method} /v1/sessions/{found[2]}{path}{'?fresh=true' if found[3] else ''}"

    return _COMMAND.sub(request, text) if "waguard " in text else text  # hundreds of sessions have no hint


def in_shell(text: str) -> str:
    """Requests as the commands that make them."""

    def command(found: re.Match[str]) -> str:
        verb = _REQUESTS.get((found[1], found[3] or ""))
        return found[0] if verb is None else f"waguard {verb} {found[2]}{' --fresh' if found[4] else ''}"

    return _REQUEST.sub(command, text)
