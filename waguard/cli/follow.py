"""Watching a session come up: its stages, its QR code as it rotates, how it ends."""

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from waguard.api import qr as drawing
from waguard.asking.ask import Ask
from waguard.cli.client import Control
from waguard.cli.show import headline
from waguard.cli.units import milliseconds
from waguard.core.model import ClientCode, Status, Verdict
from waguard.core.shown import CheckView, QrView, SessionView
from waguard.errors import SessionNotFound

_LOOK_EVERY_S = 0.5
_QUIET = (2, 1)
"""Modules of quiet zone, the better first: phones read a code with one, and lines are few."""
# The daemon draws the light parts. On paper it is the dark ones that are drawn, and then no gap between two lines
# of the terminal can cut through a light area.
_ON_PAPER = str.maketrans("█▀▄ ", " ▄▀█")
_LARGER = "Make it larger."
_PAPER = "#000000 on #ffffff"


def follow(
    control: Control,
    code: ClientCode,
    verb: Ask[SessionView],
    *,
    console: Console,
    with_qr: bool,
) -> SessionView:
    """Show the session while the daemon carries out ``verb``; returns or raises as that does."""
    before = _look(control, code)
    with ExitStack() as stack:
        # Transient: a QR code that is used up must not stay on the screen.
        live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        report = _Report(console, live, with_qr=with_qr, before=before)
        stack.callback(report.close)
        if live is not None:
            stack.enter_context(live)

        def look() -> None:
            if (view := _look(control, code)) is not None:
                report.tell(view)

        view = control.do(verb, (_LOOK_EVERY_S, look))
        report.tell(view)
    if live is not None and with_qr and view.qr is not None:
        console.print(_picture(view.qr, console, _LARGER))
    return view


def _look(control: Control, code: ClientCode) -> SessionView | None:
    try:
        return control.session(code)
    except SessionNotFound:  # the request that makes it is still on its way
        return None


class _Report:
    """A line per change; the QR code below them, replaced in place, or where there is no terminal once each."""

    def __init__(
        self, console: Console, live: Live | None, *, with_qr: bool, before: SessionView | None
    ) -> None:
        self._console, self._live, self._with_qr = console, live, with_qr
        self._began = time.monotonic()
        self._told: set[tuple[str | None, str]] = set()
        if before is not None and before.status is not Status.STARTING:  # else what is under way is joined
            self._told = {(before.attempt, step) for step in (*before.stages_ms, "check")}
        self._last: Text | None = None
        self._size = console.size
        self._qr = ""
        self._file: Path | None = None

    def tell(self, view: SessionView) -> None:
        qr = view.qr if self._with_qr else None
        if self._live is not None and self._size != self._console.size:
            # The terminal has moved what was on it; what was there can be replaced no longer.
            self._size, self._last = self._console.size, None
            self._console.clear()
        if self._live is not None:
            self._live.update(self._shown(qr), refresh=True)
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
        new = qr is not None and qr.text != self._qr
        self._qr = qr.text if qr is not None else ""
        if self._live is None and qr is not None and new:
            self._console.print(drawing.text(qr).decode(), end="", soft_wrap=True)

    def _shown(self, qr: QrView | None) -> RenderableType:
        """The code, or where its picture is if it does not fit."""
        if qr is None:
            self.close()
            return Text("")
        if self._file is None and drawn(qr, self._console) is None:
            self._file = _picture_file()
        if self._file is None:
            return _picture(qr, self._console, _LARGER)
        if qr.text != self._qr:
            with suppress(OSError):
                self._file.write_bytes(drawing.png(qr))
        return _picture(qr, self._console, f"Make it larger, or scan it from this picture:\n{self._file}")

    def close(self) -> None:
        """A picture of a code is of no use to anybody when its command has ended."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None

    def _say(self, line: Text) -> None:
        self._console.print(Text(f"{time.monotonic() - self._began:6.1f} s  ").append(line))


def _check(view: SessionView, check: CheckView) -> Text:
    """What was found on the profile, and what has come of it."""
    if check.verdict is not Verdict.DAMAGED:
        return Text(f"The profile is {check.verdict}: {check.why}", "yellow")
    if view.profile == "restored":
        return Text(
            f"The profile was damaged: {check.why} Its snapshot {view.snapshot} has taken its place.",
            "yellow",
        )
    return Text(f"The profile is damaged: {check.why} A scan is needed; what was there is put aside.", "red")


def _picture_file() -> Path | None:
    """An empty one that nobody else may read, if one can be made: whoever scans the code links a phone of his own."""
    place = os.environ.get("XDG_RUNTIME_DIR", "")
    where = place if os.access(place, os.W_OK) else None
    try:
        handle, name = tempfile.mkstemp(prefix="waguard-", suffix=".png", dir=where)
    except OSError:
        return None
    os.close(handle)
    return Path(name)


def drawn(qr: QrView, console: Console) -> Sequence[str] | None:
    """The code's lines, as the daemon draws them, with as much of a quiet zone as fits; none if it does not fit at all."""
    for quiet in _QUIET if _has_blocks(console) else ():
        lines = drawing.text(qr, quiet).decode().splitlines()
        if console.height > len(lines) and console.width >= len(lines[0]):
            return lines
    return None


def _has_blocks(console: Console) -> bool:
    try:
        "█▀▄".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _too_small(qr: QrView, console: Console) -> str:
    if not _has_blocks(console):
        return f"This terminal's {console.encoding} has no letters to draw a QR code with."
    least = drawing.text(qr, _QUIET[-1]).decode().splitlines()
    return (
        f"This window has {console.height} lines of {console.width} columns; the QR code needs {len(least) + 1} of "
        f"{len(least[0])}."
    )


def _picture(qr: QrView, console: Console, instead: str) -> RenderableType:
    """``instead``: what to do where it does not fit."""
    caption = f"Scan it: WhatsApp on the phone, Linked devices, Link a device. New code {qr.age_s:.0f} s ago."
    if (lines := drawn(qr, console)) is None:
        return Text(f"{_too_small(qr, console)} {instead}", "yellow")
    if console.color_system is None or console.no_color:
        return Group(Text("\n".join(lines)), Text(caption, overflow="ellipsis", no_wrap=True))
    return Group(on_paper(lines), Text(caption, overflow="ellipsis", no_wrap=True))


def on_paper(lines: Sequence[str]) -> Text:
    """The daemon's QR code, black on white whatever the terminal's own colours are."""
    whole = [
        *lines[:-1],
        "█" * len(lines[-1]),
    ]  # an odd number of rows leaves half a line, which is paper too
    return Text("\n".join(whole).translate(_ON_PAPER), _PAPER)
