"""The tables as a page: what `docs/state-table.md` is made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from waguard.core.login import table as login
from waguard.core.session import table, treatment, visit

Rules = Mapping[Any, Sequence[Callable[..., Any]]]


def as_text() -> str:
    """All tables as Markdown."""
    parts = (
        _part(
            "A session",
            "What happens to a session (rows) by where its browser stands (columns): `waguard/core/session/table.py`.",
            table.COLUMNS,
            table.ROWS,
        ),
        _part(
            "A treatment",
            "What is reported (rows) by where the treatment of the fault before it stands (columns), while a browser is up: the"
            " rule `treat` above, `waguard/core/session/treatment.py`.",
            treatment.COLUMNS,
            treatment.ROWS,
        ),
        _part(
            "A login",
            "What happens to a login, and what the page says of it (rows), by how it stands (columns): `waguard/core/login/table.py`.",
            login.COLUMNS,
            login.ROWS,
        ),
        _part(
            "The visit of a page",
            "What happens to a page (rows) by where its visit stands (columns): `waguard/core/session/visit.py`.",
            visit.COLUMNS,
            visit.ROWS,
        ),
    )
    lines = [
        "# The state tables",
        "",
        "What decides what the daemon does; a test keeps this page true. In each cell is the rule. An empty cell: what happens is of no",
        "interest there.",
        *(line for part in parts for line in part),
    ]
    return "\n".join([*lines, ""])


def _part(title: str, about: str, columns: Sequence[str], rows: Rules) -> Iterator[str]:
    words = {
        rule.__name__: rule.__doc__ for rules in rows.values() for rule in rules if rule.__name__ != "ignore"
    }
    yield from ("", f"## {title}", "", about, "")
    yield "| | " + " | ".join(columns) + " |"
    yield "|" + "---|" * (len(columns) + 1)
    for event, rules in rows.items():
        cells = ("" if rule.__name__ == "ignore" else rule.__name__ for rule in rules)
        yield f"| {event if isinstance(event, str) else event.__name__} | " + " | ".join(cells) + " |"
    yield ""
    yield from (f"- `{name}`: {text}" for name, text in words.items())
