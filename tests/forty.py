"""Forty sessions with trouble, as a control port lists them."""

import time
from dataclasses import replace

from views import CONNECTED, DOWN, FAILED, SCAN, STARTING

from waguard.core.health.faults import Fault
from waguard.core.health.plans import Remedy
from waguard.core.model import Link, Login, Process, Status
from waguard.core.shown import FailureView, FindingView, SessionView

LONG = "client-with-the-longest-code-that-there-may-be-" + "x" * 17
assert len(LONG) == 64


def forty(now: float | None = None) -> list[SessionView]:
    """By now, unix time, in seconds: 27 that are well, 13 that are not or wait."""
    now = time.time() if now is None else now

    def since(view: SessionView, code: str, seconds: float, **more: object) -> SessionView:
        return replace(view, client=code, since=now - seconds, **more)  # type: ignore[arg-type]

    well = [
        since(
            CONNECTED,
            f"shop-{number:02}",
            3600.0 * number + 40,
            wid=f"34600000{number:03}:7@c.us",
            push_name="Tienda",
            login=Login.ON_DISK,
            memory_mb=180.0 + number,
        )
        for number in range(1, 27)
    ]
    looping = FindingView(
        Fault.PAGE_LOOPING,
        ["it has not answered for 34 s", "its renderer works without end"],
        Remedy.RELOAD,
        [],
        12.0,
        33.0,
    )
    offline = FindingView(
        Fault.OFFLINE, ["Socket.state=TIMEOUT", "Stream.mode=OFFLINE"], None, [], 340.0, 41.0
    )
    conflict = FindingView(Fault.CONFLICT, ["WhatsApp is in use in another browser"], None, [], 7200.0, None)
    late = FailureView(
        "deadline_exceeded",
        "Stage open: the page was not usable within 45 s; it shows splash, app.",
        "open",
        "Is the network up? If WhatsApp Web is just slow here, raise deadlines.open in the configuration.",
    )
    recovering = {"status": Status.RECOVERING, "link": Link.LOST, "login": Login.ON_DISK}
    return [
        *well,
        since(FAILED, "restaurante-el-puerto", 180, failure=late, login=Login.ON_DISK),
        since(FAILED, "demo", 20),
        since(FAILED, LONG, 86_400),
        since(DOWN, "clinica-norte", 7300, status=Status.LOGGED_OUT, process=Process.UP, reason="logged_out"),
        since(CONNECTED, "hotel-sol", 7260, finding=conflict, **recovering),
        since(CONNECTED, "taller-12", 40, finding=looping, **recovering),
        since(CONNECTED, "taller-13", 41, finding=offline, **recovering),
        since(CONNECTED, "taller-14", 42, finding=offline, **recovering),
        since(CONNECTED, "taller-15", 43, finding=offline, **recovering),
        since(SCAN, "nuevo-1", 15),
        since(SCAN, "nuevo-2", 3),
        since(STARTING, "vuelve", 2),
        since(DOWN, "cerrado", 500_000, login=Login.ON_DISK),
        since(DOWN, "cerrado-2", 500_000),
    ]
