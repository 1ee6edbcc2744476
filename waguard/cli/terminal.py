"""Where a command prints: rich on a terminal, plain elsewhere, and harmless whatever is printed."""

import sys
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from waguard.core.plain_text import plain

_UNBROKEN = 10_000
"""Columns of what is not a terminal: whoever reads it there breaks lines itself."""


class Harmless(Console):
    """What others say (a page, an archive, another program) reaches a terminal as text alone, whatever prints it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:  # our own
                yield segment
            else:
                yield Segment(plain(segment.text, lines=True), segment.style)


def output() -> Console:
    return _console(Harmless(highlight=False, markup=False, emoji=False))


def errors() -> Console:
    return _console(Harmless(highlight=False, markup=False, emoji=False, stderr=True))


def _console(console: Console) -> Console:
    if not console.is_terminal:
        console.width = _UNBROKEN
    return console


def on_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()
