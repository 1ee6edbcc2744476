"""Watching a session come up: its stages, its QR code as it rotates, how it ends."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from waguard.cli.client import Control
from waguard.cli.show import headline, milliseconds
from waguard.core.model import ClientCode
from waguard.errors import NoQrCode, SessionNotFound
from waguard.profile.examiners.subject import Verdict
from waguard.views import CheckView, SessionView

_LOOK_EVERY_S = 0.5
# The daemon draws the light parts. On paper it is the dark ones that are drawn, and then no gap between two lines
# of the terminal can cut through a light area.
_ON_PAPER = str.maketrans("█▀▄ ", " ▄▀█")
_PAPER = "#000000 on #ffffff"


async def follow(
    control: Control,
    code: ClientCode,
    verb: Coroutine[Any, Any, SessionView],
    *,
    console: Console,
    with_qr: bool,
) -> SessionView:
    """Show the session while the daemon carries out ``verb``; returns or raises as that does."""
    work = asyncio.ensure_future(verb)
    # Transient: a QR code that is used up must not stay on the screen.
    live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
    report = _Report(console, live)
    try:
        with live or nullcontext():
            while not (await asyncio.wait([work], timeout=_LOOK_EVERY_S))[0]:
                if (view := await _look(control, code)) is not None:
                    report.tell(view, await _qr(control, view) if with_qr else "")
            view = work.result()
            report.tell(view, await _qr(control, view) if with_qr else "")
        if live is not None and report.qr:
            console.print(_picture(view, report.qr, console))
        return view
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _look(control: Control, code: ClientCode) -> SessionView | None:
    try:
        return await control.session(code)
    except SessionNotFound:  # the request that makes it is still on its way
        return None


async def _qr(control: Control, view: SessionView) -> str:
    if view.qr is None:
        return ""
    try:
        return await control.qr(ClientCode(view.client))
    except NoQrCode:  # scanned in this very moment
        return ""


class _Report:
    """A line per change; the QR code below them, replaced in place, or where there is no terminal once each."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self.qr = ""
        self._console, self._live = console, live
        self._began = time.monotonic()
        self._told: set[tuple[str | None, str]] = set()
        self._last: Text | None = None
        self._size = console.size

    def tell(self, view: SessionView, qr: str) -> None:
        if self._live is not None and self._size != self._console.size:
            # The terminal has moved what was on it; what was there can be replaced no longer.
            self._size, self._last = self._console.size, None
            self._console.clear()
        if self._live is not None:
            self._live.update(_picture(view, qr, self._console), refresh=True)
        for stage, ms in view.stages_ms.items():
            if (view.attempt, stage) not in self._told:
                self._told.add((view.attempt, stage))
                self._say(Text(f"{stage} took {milliseconds(ms)}", "dim"))
        if view.check is not None and (view.attempt, "check") not in self._told:
            self._told.add((view.attempt, "check"))
            self._say(_check(view, view.check))
        if (line := headline(view)) != self._last:
            self._last = line
            self._say(line)
        if self._live is None and qr and qr != self.qr:
            self._console.print(qr, end="", soft_wrap=True)
        self.qr = qr

    def _say(self, line: Text) -> None:
        self._console.print(Text(f"{time.monotonic() - self._began:6.1f} s  ").append(line))


def _check(view: SessionView, check: CheckView) -> Text:
    """What was found on the profile, and what has come of it."""
    if check.verdict is not Verdict.DAMAGED:
        return Text(f"The profile is {check.verdict}: {check.why}", "yellow")
    if view.profile == "restored":
        return Text(
            f"The profile was damaged: {check.why} Its snapshot {view.backup} has taken its place.", "yellow"
        )
    return Text(f"The profile is damaged: {check.why} A scan is needed; what was there is kept aside.", "red")


def _picture(view: SessionView, qr: str, console: Console) -> RenderableType:
    if not qr:
        return Text("")
    lines = qr.splitlines()
    if console.height < len(lines) + 1 or console.width < len(lines[0]):
        return Text(
            f"This window has {console.height} lines of {console.width} columns; the QR code needs "
            f"{len(lines) + 1} of {len(lines[0])}. Make it larger.",
            "yellow",
        )
    caption = "Scan it: WhatsApp on the phone, Linked devices, Link a device."
    if view.qr is not None:
        caption += f" New code {view.qr.age_s:.0f} s ago."
    if console.color_system is None or console.no_color:
        return Group(Text("\n".join(lines)), Text(caption))
    return Group(on_paper(qr), Text(caption))


def on_paper(qr: str) -> Text:
    """The daemon's QR code, black on white whatever the terminal's own colours are."""
    lines = qr.splitlines()
    lines[-1] = "█" * len(lines[-1])  # an odd number of rows leaves half a line, which is paper too
    return Text("\n".join(lines).translate(_ON_PAPER), _PAPER)
