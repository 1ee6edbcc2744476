"""Rows for people and for programs: aligned and never cut short on a terminal; elsewhere a line each, with tabs between."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.console import Console
from rich.text import Text

from waguard.core.plain_text import plain

_GAP = 2
_LEAST = 40
"""Columns that a text gets before any goes to what is only shown where there is room."""
_NARROW = 30
"""With fewer a text stands beneath its row."""
_NAME = 16
"""Columns that the first column may always have; a name that is longer than three tenths of the screen has a line of its own."""


@dataclass(frozen=True, slots=True)
class Column:
    head: str
    spare: bool = False
    """Shown only where there is room."""
    text: bool = False
    """Words, which may go on in the next line; else it is a name, of which every letter counts."""


Row = Sequence[str | Text]


def table(columns: Sequence[Column], rows: Sequence[Row], console: Console) -> None:
    """An empty cell is ``-`` for programs."""
    if not console.is_terminal:
        lines = [[column.head for column in columns], *rows]
        # Not printed by rich, which makes spaces of tabs.
        console.file.write("".join("\t".join(map(_plain, line)) + "\n" for line in lines))
        return
    cells = [[Text(one) if isinstance(one, str) else one for one in row] for row in rows]
    natural = [
        max(len(column.head), *(row[number].cell_len for row in cells), 0)
        for number, column in enumerate(columns)
    ]
    most = max(_NAME, console.width * 3 // 10)
    natural[0] = max(len(columns[0].head), *(row[0].cell_len for row in cells if row[0].cell_len <= most), 0)
    used = [number for number, column in enumerate(columns) if not column.spare or _any(cells, number)]
    widths, beneath = _fit(columns, used, natural, console.width)
    _line(console, {number: [Text(columns[number].head, "dim")] for number in widths}, widths)
    for row in cells:
        wrapped = {number: _wrapped(row[number], width, console) for number, width in widths.items()}
        if row[0].cell_len > widths[0]:  # in one piece, so that it can be copied
            console.print(row[0], soft_wrap=True)
            wrapped[0] = []
        _line(console, wrapped, widths)
        for number in beneath:
            if row[number].plain not in {"", "-"}:
                inner = console.width - _GAP
                for line in _wrapped(row[number], inner, console):
                    console.print(Text(" " * _GAP).append_text(line), soft_wrap=True)


def facts(rows: Sequence[tuple[str, str | Text]], console: Console) -> None:
    """Names and what they are."""
    if not console.is_terminal:
        console.file.write("".join(f"{_plain(name)}\t{_plain(value)}\n" for name, value in rows))
        return
    widths = {0: max(len(name) for name, _ in rows)}
    widths[1] = max(_NARROW, console.width - widths[0] - _GAP)
    for name, value in rows:
        text = Text(value) if isinstance(value, str) else value
        cells = {0: [Text(name, "dim")], 1: _wrapped(text, widths[1], console)}
        _line(console, cells, widths)


def _plain(cell: str | Text) -> str:
    text = cell if isinstance(cell, str) else cell.plain
    return plain(re.sub(r"[\t\r\n]+", " ", text)) or "-"


def _any(cells: Sequence[Sequence[Text]], number: int) -> bool:
    return any(row[number].plain for row in cells)


def _fit(
    columns: Sequence[Column], used: Sequence[int], natural: Sequence[int], width: int
) -> tuple[dict[int, int], Sequence[int]]:
    """How wide which columns are, and which stand beneath."""

    def needed(numbers: Sequence[int], least: int) -> int:
        wide = (min(natural[one], least) if columns[one].text else natural[one] for one in numbers)
        return sum(wide) + _GAP * (len(numbers) - 1)

    shown = [*used]
    for one in reversed(used):
        if columns[one].spare and needed(shown, _LEAST) > width:
            shown.remove(one)
    texts = [one for one in shown if columns[one].text]
    beneath = texts if needed(shown, _NARROW) > width else []
    widths = {one: natural[one] for one in shown if one not in beneath}
    while sum(widths.values()) + _GAP * (len(widths) - 1) > width and max(widths.values()) > 1:
        wide = [one for one in widths if columns[one].text and widths[one] > _NARROW] or [*widths]
        widths[max(wide, key=lambda one: widths[one])] -= 1
    return widths, beneath


def _wrapped(text: Text, width: int, console: Console) -> Sequence[Text]:
    return [*text.wrap(console, max(1, width), overflow="fold")]


def _line(console: Console, cells: Mapping[int, Sequence[Text]], widths: Mapping[int, int]) -> None:
    """One row, which may be several lines of the terminal."""
    for parts in zip_longest(*cells.values()):
        line = Text()
        for number, part in zip(widths, parts, strict=True):
            line.append(" " * max(0, _start(widths, number) - line.cell_len))
            line.append_text(part if part is not None else Text())
        line.rstrip()
        console.print(line, soft_wrap=True)


def _start(widths: Mapping[int, int], number: int) -> int:
    before = [width for one, width in widths.items() if one < number]
    return sum(before) + _GAP * len(before)
