"""Who has the port, and what a daemon that runs says of itself."""

import errno
import http.client
import socket

from waguard.cli.checks import Grade, Seen
from waguard.cli.client import control
from waguard.cli.service import UNIT, Service
from waguard.config.sections import Config
from waguard.errors import WaguardError

_ANSWER_S = 10.0
_LATELY_H = 1.0
_UP = frozenset({"active", "reloading"})
_DOWN = frozenset({"inactive", "failed"})
"""States of a service that has no daemon and is to have none."""


def port(config: Config, service: Service | None = None) -> Seen:
    name, number = config.api.host, config.api.port
    if number == 0:
        return Seen("any free one: api.port is 0")
    family, kind, protocol, _, address = socket.getaddrinfo(name, number, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Seen(
                    f"{name}:{number} cannot be opened: {error.strerror}", Grade.PROBLEM, "Set api.port"
                )
        else:
            return Seen(f"{name}:{number} is free")
    state = service.state if service is not None and service.keeps(number) else ""
    # Who asks a socket that systemd keeps waits for a daemon that may never come, or has it started.
    if state not in _DOWN and _is_waguard(name, number):
        return Seen(f"a waguard answers at {name}:{number}")
    if state:
        what = f"{name}:{number} is kept by systemd for the service, which is {state}"
        if state == "inactive":  # its first request starts it
            return Seen(what)
        return Seen(what, Grade.WARNING, "See why it does not answer: systemctl status waguard")
    return Seen(
        f"{name}:{number} is taken by another program",
        Grade.PROBLEM,
        f"See which: ss -ltnp 'sport = :{number}'. Or set api.port",
    )


def _is_waguard(name: str, number: int) -> bool:
    connection = http.client.HTTPConnection(name, number, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read(100).replace(b" ", b"") == b'{"status":"ok"}'
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def daemon(config: Config, service: Service | None = None) -> Seen:
    """In what the running one starts browsers. What works here need not work there, under its unit's settings."""
    if service is not None and service.state not in _UP:  # its socket would start it, or have us wait
        return _down(service)

    try:
        with control(config, service, None) as running:
            sandbox = running.sessions().sandbox
    except WaguardError as error:
        none = error.code in {"no_daemon", "no_token"}
        return Seen(error.message) if none else Seen(error.message, Grade.WARNING, error.hint)
    if sandbox is None:
        return Seen("runs; only the admin is shown its sandbox")
    if sandbox.problem:
        what = f"runs, with browsers in {sandbox.kind} instead of bubblewrap: {sandbox.problem}"
        hint = "If bubblewrap works here, something in the daemon's own environment prevents it"
        unit = f", such as a line of {UNIT}" if service is not None else ""
        return Seen(what, Grade.WARNING, f"{hint}{unit}. It is tried again at the daemon's next start")
    return Seen(f"runs, with browsers in {sandbox.kind}")


def _down(service: Service) -> Seen:
    why = "See why: journalctl -u waguard -p err"
    if service.state == "failed":
        return Seen(f"{UNIT} has failed", Grade.PROBLEM, f"{why}; then: systemctl reset-failed waguard")
    if service.state == "activating" and service.restarts:
        what = f"{UNIT} keeps ending: systemd has restarted it {service.restarts} times"
        return Seen(what, Grade.PROBLEM, why)
    if service.state == "inactive" and service.enabled and not service.listens:
        return Seen(f"{UNIT} is enabled, and down", Grade.WARNING, "systemctl start waguard")
    return Seen(f"{UNIT} is {service.state}")


def alerts(config: Config, service: Service | None = None) -> Seen:
    """What the running daemon itself says is wrong, and what connects have failed with lately."""
    if service is not None and service.state not in _UP:
        return Seen("there is no daemon to ask")

    try:
        with control(config, service, None) as running:
            found = running.stats(None, _LATELY_H)
    except WaguardError as error:  # `daemon` tells
        return Seen(f"not known: {error.message}")
    if found.alerts:
        what = "; ".join(f"{one.alert}: {one.text}" for one in found.alerts)
        return Seen(
            what, Grade.PROBLEM, "Fix what they name; they then clear automatically. See: waguard status"
        )
    attempts = found.attempts
    if wrong := attempts.failed + attempts.refused:
        codes = ", ".join(f"{code} {count}" for code, count in attempts.failures.items())
        what = f"none; of {attempts.usable + wrong} connects of the last hour {wrong} had no success: {codes}"
        return Seen(what, Grade.OK if attempts.usable else Grade.WARNING, "See why: waguard status")
    return Seen("none")
