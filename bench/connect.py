#!/usr/bin/env python3
"""How long a connect takes from the call to the QR code, against the floor; and a cleanup.

The floor is the same binary with the same flags on the same page, started bare over a pipe by `floor`, without
daemon, sandbox, profile check, registry or HTTP. Daemon and floor take turns, so that a machine that changes its
speed changes both; the ratio is the median of the turns' own ratios. Everything real: browser, sandbox, HTTP, disk.
"""

import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil
from figures import Figures, daemon, options, room, rounds, simulator

from waguard.browser import find, flags
from waguard.config.sections import Browser
from waguard.sandbox import drop_privileges, unprivileged_user

RATIO_AIM = 1.25
TURNS, QUICK_TURNS = 30, 4
PATIENCE_S = 30.0


def main() -> None:
    chosen = options(__doc__)
    turns = QUICK_TURNS if chosen.quick else TURNS
    cold: list[float] = []
    bare: list[float] = []
    cleaned: list[float] = []
    cleaned_stopped: list[float] = []
    with room() as place, simulator() as page, daemon(place / "sessions", page) as (url, token):
        port = Port(url, token)
        for number in rounds(turns + 1):
            began = time.perf_counter()
            view = port.post(f"/v1/sessions/c{number}/connect")
            took = time.perf_counter() - began
            assert view["qr"]["text"].startswith("2@"), view
            stop = number % 2 == 0
            if stop:
                stop_all(view["browser"]["pids"][0])
            began = time.perf_counter()
            report = port.post(f"/v1/sessions/c{number}/cleanup")
            took_cleanup = time.perf_counter() - began
            assert report["ok"], report
            took_bare = floor(page, place)
            if number:  # the first warms the page cache
                cold.append(took)
                bare.append(took_bare)
                (cleaned_stopped if stop else cleaned).append(took_cleanup)
    figures = Figures("connect")
    ratio = median(ours / theirs for ours, theirs in zip(cold, bare, strict=True))
    figures.add("connect_to_qr_cold_ms", median(cold) * 1000)
    figures.add("floor_to_qr_cold_ms", median(bare) * 1000)
    figures.add("connect_over_floor_ratio", ratio, at_most=RATIO_AIM)
    figures.add("connect_to_qr_cold_worst_ms", max(cold) * 1000)
    figures.add("cleanup_healthy_ms", median(cleaned) * 1000)
    figures.add("cleanup_stopped_ms", median(cleaned_stopped) * 1000)
    figures.add("turns", turns)
    figures.close(
        chosen.json,
        f"QR code after {median(cold) * 1000:.0f} ms, {ratio:.2f} times the floor of {median(bare) * 1000:.0f} ms; "
        f"cleanup {median(cleaned) * 1000:.0f} ms, of a stopped browser {median(cleaned_stopped) * 1000:.0f} ms",
    )


class Port:
    """The control port, over one connection."""

    def __init__(self, url: str, token: str) -> None:
        self._http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2 * PATIENCE_S)
        self._headers = {"Authorization": f"Bearer {token}"}

    def post(self, path: str) -> dict[str, Any]:
        self._http.request("POST", path, headers=self._headers)
        answer = self._http.getresponse()
        body: dict[str, Any] = json.loads(answer.read())
        assert answer.status == 200, body
        return body


def stop_all(pid: int) -> None:
    """SIGSTOP for a sandbox's init and everything below it."""
    init = psutil.Process(pid)
    for process in [init, *init.children(recursive=True)]:
        process.send_signal(signal.SIGSTOP)


def floor(page: str, place: Path) -> float:
    """Seconds from the spawn to the QR code, with nothing in between."""
    binary = find.Binary(find.locate(None), _version())
    user = unprivileged_user("")
    profile = Path(tempfile.mkdtemp(dir=place))
    if user is not None:
        os.chown(profile, user.uid, user.gid)
    command = [*(drop_privileges(user) if user else ()), *flags.command(binary, profile, Browser())]
    began = time.perf_counter()
    orders_read, orders_write = os.pipe()
    answers_read, answers_write = os.pipe()

    def lay_pipes() -> None:
        # Above both first: either may be where the other is to go.
        high = [os.dup2(fd, fd + 100) for fd in (orders_read, answers_write)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"HOME": str(profile), "PATH": os.defpath},
        preexec_fn=lay_pipes,  # noqa: PLW1509 (no threads here)
        close_fds=False,
    ) as process:
        os.close(orders_read)
        os.close(answers_write)
        with os.fdopen(orders_write, "wb", 0) as orders, os.fdopen(answers_read, "rb") as answers:
            wire = _Wire(orders, answers)
            wire.order("Target.setDiscoverTargets", discover=True)
            target = next(
                event["params"]["targetInfo"]["targetId"]
                for event in wire.messages()
                if event.get("method") == "Target.targetCreated"
                and event["params"]["targetInfo"]["type"] == "page"
            )
            session = wire.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            # Without this the page refuses the browser.
            agent = {
                "userAgent": flags.user_agent(binary, ""),
                "userAgentMetadata": flags.client_hints(binary),
            }
            wire.ask("Emulation.setUserAgentOverride", session, **agent)
            wire.ask("Page.navigate", session, url=page)
            look = "document.querySelector('[data-ref]')?.getAttribute('data-ref') ?? ''"
            while not _text(wire.look(session, look)):
                assert time.perf_counter() - began < PATIENCE_S, "the floor got no QR code"
                time.sleep(0.005)
            took = time.perf_counter() - began
            wire.order("Browser.close")
            process.wait(timeout=PATIENCE_S)
    return took


def _text(answer: dict[str, Any]) -> str:
    return str(answer.get("result", {}).get("value", ""))


class _Wire:
    """The DevTools protocol, as little of it as will do."""

    def __init__(self, orders: Any, answers: Any) -> None:
        self._orders, self._answers = orders, answers
        self._number = 0

    def order(self, method: str, session: str | None = None, **params: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self._orders.write(json.dumps(message).encode() + b"\0")
        return self._number

    def messages(self) -> Iterator[dict[str, Any]]:
        raw = b""
        while (byte := self._answers.read(1)) != b"":
            if byte == b"\0":
                yield json.loads(raw)
                raw = b""
            else:
                raw += byte

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        answer = self.look_for(self.order(method, session, **params))
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def look(self, session: str, expression: str) -> dict[str, Any]:
        """The value, or nothing while the page is between two documents."""
        number = self.order("Runtime.evaluate", session, expression=expression, returnByValue=True)
        result: dict[str, Any] = self.look_for(number).get("result", {})
        return result

    def look_for(self, number: int) -> dict[str, Any]:
        return next(message for message in self.messages() if message.get("id") == number)


def _version() -> str:
    said = subprocess.run([find.locate(None), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[-1] if said.stdout.split()[-1][0].isdigit() else said.stdout.split()[1]


if __name__ == "__main__":
    main()
