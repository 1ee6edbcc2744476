"""Clients of a daemon in this process, and how they come to be logged in."""

import asyncio
import json
from pathlib import Path

from waguard.browser.page import Page
from waguard.core.model import ClientCode, Wait
from waguard.core.shown import SessionView
from waguard.simulator.server import Cadence, Simulator
from waguard.supervisor.supervisor import Supervisor

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
BRISK = Cadence(first_s=1.0, next_s=0.5, sync_s=0.1)


async def log_in(supervisor: Supervisor, simulator: Simulator, *codes: ClientCode) -> list[SessionView]:
    """Connect and scan each; all are connected afterwards."""
    await asyncio.gather(*(supervisor.connect(code) for code in codes))
    for code in codes:
        simulator.scan(supervisor.qr(code).text, "34600000000")
    return list(await asyncio.gather(*(supervisor.connect(code, wait=Wait.CONNECTED) for code in codes)))


def pid_of(view: SessionView) -> int:
    assert view.browser is not None
    return view.browser.pids[0]


def page_of(supervisor: Supervisor, code: ClientCode) -> Page:
    browser = supervisor._sessions[code]._instance.browser
    assert browser is not None
    assert browser.page is not None
    return browser.page


def token(supervisor: Supervisor) -> str:
    """The admin's."""
    found: str = json.loads((supervisor._config.sessions.dir / ".tokens.json").read_text())["admin"]
    return found


async def logged_in(supervisor: Supervisor, simulator: Simulator, sessions: Path) -> Path:
    """Demo's profile, logged in and closed."""
    view = await supervisor.connect(DEMO)
    assert view.qr is not None
    simulator.scan(view.qr.text, "34600000000")
    await supervisor.connect(DEMO, wait=Wait.CONNECTED)
    await supervisor.disconnect(DEMO)
    return (sessions / "demo" / "profile").resolve()
