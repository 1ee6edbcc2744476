"""Every event is in the catalogue, and the reference is made from it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import waguard
from waguard.core import catalogue
from waguard.core.catalogue import EVENTS, OF_A_CLIENT, NotInCatalogue, mistake
from waguard.core.event_fields import FIELDS
from waguard.core.feed import TOLD
from waguard.observe.bus import Bus, Event

ROOT = Path(waguard.__file__).parent
LOG_LINES = {"daemon.failed", "log.lost", "log.journal_away", "log.journal_back"}
"""Made where there is no bus."""


def published() -> Iterator[tuple[str, str, dict[str | None, ast.expr]]]:
    """Where, which event, and its keywords, of each call in the source that names one."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case (
                    ast.Call(
                        func=ast.Attribute(attr="publish" | "_publish" | "_warn") | ast.Name(id="publish"),
                        args=[ast.Constant(value=str(name)), *_],
                    )
                    | ast.Call(func=ast.Name(id="News"), args=[ast.Constant(value=str(name))])
                    | ast.Call(func=ast.Name(id="Announce"), args=[ast.Constant(value=str(name)), *_])
                ):
                    yield f"{path.name}:{node.lineno}", name, {one.arg: one.value for one in node.keywords}
                case ast.Call(
                    func=ast.Name(id="Event" | "News"), args=[ast.Constant(value=str(name)), level, *_]
                ):
                    yield f"{path.name}:{node.lineno}", name, {"level": level}
                case ast.Dict(
                    keys=[ast.Constant(value="event"), ast.Constant(value="level"), *keys],
                    values=[ast.Constant(value=str(name)), level, *values],
                ):
                    fields = dict(zip(map(ast.literal_eval, filter(None, keys)), values, strict=True))
                    yield f"{path.name}:{node.lineno}", name, {"level": level, **fields}


def test_what_is_published_is_in_the_catalogue() -> None:
    """Not only what the tests come by."""
    for where, name, keywords in published():
        assert name in EVENTS, where
        kind = EVENTS[name]
        level = keywords.pop("level", None)
        usual = isinstance(level, ast.Constant) and level.value == kind.levels[0]
        assert not usual or name in LOG_LINES, f"{where}: the catalogue has its level"
        levels = {one.value for one in ast.walk(level) if isinstance(one, ast.Constant)} if level else set()
        assert levels & {"debug", "info", "warning", "error"} <= set(kind.levels), where
        others = keywords.keys() - {None, "client", "actor", "fields", *kind.fields}
        assert kind.details or not others, f"{where}: {others}"


def test_what_is_in_the_catalogue_is_published() -> None:
    """The last two are put together where they are published."""
    assert {name for _, name, _ in published()} | {"profile.suspect", "profile.damaged"} == set(EVENTS)


def test_every_field_has_one_meaning_and_every_meaning_a_field() -> None:
    used = {field for kind in EVENTS.values() for field in kind.fields}
    assert used | set(OF_A_CLIENT) == set(FIELDS)
    for name, kind in EVENTS.items():
        assert set(kind.differs or ()) <= set(kind.fields), name
        assert kind.says.endswith("."), name
    for name, fields in TOLD.items():
        assert fields <= {*EVENTS[name].fields, *OF_A_CLIENT}, name


@pytest.mark.parametrize(
    ("name", "given", "what"),
    [
        ("session.chnaged", {}, "no event is called session.chnaged"),
        ("session.qr_shown", {"qr": "2@secret"}, "session.qr_shown has no qr"),
        ("session.qr_shown", {"level": "error"}, "session.qr_shown is never of level error"),
    ],
)
def test_nothing_else_can_be_published(name: str, given: dict[str, Any], what: str) -> None:
    seen: list[Event] = []
    bus = Bus()
    bus.subscribe(seen.append)
    with pytest.raises(NotInCatalogue, match=what):
        bus.publish(name, **given)
    bus.publish("session.failure", code="refused", stderr=["an error's details are its own"])
    assert [one.level for one in seen] == ["warning"]


def test_the_reference_is_current() -> None:
    """Else: ``python -m waguard.core.catalogue > docs/reference/events.md``."""
    reference = ROOT.parent / "docs" / "reference" / "events.md"
    assert reference.read_text() == "\n".join(catalogue.page()) + "\n"


def test_what_nobody_has_foreseen_says_where_and_has_its_trace() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    fields = mistake("a finding", caught.value)
    assert (fields["where"], fields["error"]) == ("a finding", repr(caught.value))
    assert "test_catalogue.py" in fields["trace"]
    assert fields.keys() <= set(EVENTS["internal.error"].fields)
