"""A chain of records: whatever is done to it afterwards is found, with its number."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core import audit
from waguard.core.audit import (
    GENESIS,
    START,
    Anchor,
    Break,
    Flaw,
    Kind,
    Note,
    Record,
    Row,
    breaks,
    counts,
    deeds,
    digest,
    going_on,
    record_of,
    row_of,
)
from waguard.core.catalogue import EVENTS

WORDS = st.text(max_size=20)
TOLD = st.dictionaries(
    WORDS,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
NOTES = st.builds(
    Note,
    at=st.floats(0, 4e9),
    kind=st.sampled_from(Kind),
    act=st.sampled_from(["cleanup", "restore"]),
    actor=WORDS,
    client=WORDS,
    told=TOLD,
)
SOME = st.lists(NOTES, min_size=1, max_size=8)


def chain(notes: Sequence[Note], after: Anchor = START) -> list[Row]:
    rows: list[Row] = []
    for note in notes:
        rows.append(row_of(note, rows[-1].anchor if rows else after))
    return rows


def found(rows: Sequence[Row], *anchors: Anchor, since: int = 1) -> list[tuple[Flaw, int, int]]:
    return [(one.flaw, one.first, one.last) for one in breaks(rows[::-1], anchors, since)]


def forged(row: Row, **changed: object) -> Row:
    """By somebody who knows how a record is made."""
    text = json.dumps(json.loads(row.text) | changed, sort_keys=True, separators=(",", ":"))
    return Row(row.number, digest(text), text)


@given(SOME)
def test_what_is_written_is_whole_and_can_be_read(notes: Sequence[Note]) -> None:
    rows = chain(notes)
    assert found(rows, rows[-1].anchor) == []
    assert found(rows, *(one.anchor for one in rows)) == []
    records = [record_of(one) for one in rows]
    assert [one and one.number for one in records] == [*range(1, len(rows) + 1)]
    assert [one and (one.note.kind, one.note.act) for one in records] == [
        (one.kind, one.act) for one in notes
    ]
    assert [one and one.previous for one in records] == [GENESIS, *(one.hash for one in rows[:-1])]
    assert all(one.text.isascii() for one in rows)


@given(SOME, st.data())
def test_a_record_that_was_changed_is_found(notes: Sequence[Note], data: st.DataObject) -> None:
    rows = chain(notes)
    at = data.draw(st.integers(0, len(rows) - 1))
    row, head = rows[at], rows[-1].anchor
    how = data.draw(st.sampled_from(["text", "hash", "both", "forged", "nonsense"]))
    changed = {
        "text": replace(row, text=row.text.replace('"kind"', '"kinD"')),
        "hash": replace(row, hash="f" * 64),
        "both": Row(row.number, "f" * 64, "{}"),
        "forged": forged(row, act="nothing"),
        "nonsense": Row(row.number, digest("[1"), "[1"),
    }[how]
    rows[at] = changed
    assert found(rows, head) == [(Flaw.CHANGED, row.number, row.number)]


@given(SOME, st.data())
def test_a_record_that_was_removed_is_found(notes: Sequence[Note], data: st.DataObject) -> None:
    rows = chain(notes)
    first = data.draw(st.integers(1, len(rows)))
    last = data.draw(st.integers(first, len(rows)))
    left = [*rows[: first - 1], *rows[last:]]
    flaw = Flaw.CUT_OFF if last == len(rows) else Flaw.REMOVED
    assert found(left, rows[-1].anchor) == [(flaw, first, last)]


@given(SOME, st.data())
def test_records_that_were_swapped_are_found(notes: Sequence[Note], data: st.DataObject) -> None:
    rows = chain(notes)
    one, other = (data.draw(st.integers(0, len(rows) - 1)) for _ in range(2))
    swapped = list(rows)
    swapped[one] = replace(rows[other], number=rows[one].number)
    swapped[other] = replace(rows[one], number=rows[other].number)
    numbers = {
        number for _, first, last in found(swapped, rows[-1].anchor) for number in range(first, last + 1)
    }
    assert numbers == ({rows[one].number, rows[other].number} if one != other else set())


@given(SOME, NOTES, st.data())
def test_a_record_that_was_added_is_found(notes: Sequence[Note], note: Note, data: st.DataObject) -> None:
    rows = chain(notes)
    head = rows[-1].anchor
    assert found([*rows, row_of(note, head)], head) == [(Flaw.ADDED, len(rows) + 1, len(rows) + 1)]
    number = data.draw(st.integers(1, len(rows)))
    twice = [*rows[:number], rows[number - 1], *rows[number:]]
    assert found(twice, head) == [(Flaw.ADDED, number, number)]
    assert found([Row(0, GENESIS, "{}"), *rows], head) == [(Flaw.ADDED, 0, 0)]


@given(SOME, st.data())
def test_a_chain_that_was_made_anew_from_somewhere_on_is_found_by_an_anchor(
    notes: Sequence[Note], data: st.DataObject
) -> None:
    rows = chain(notes)
    at = data.draw(st.integers(0, len(rows) - 1))
    anew = [
        *rows[:at],
        *chain(
            [replace(notes[at], act="forged"), *notes[at + 1 :]], ([START, *(r.anchor for r in rows)])[at]
        ),
    ]
    # The one beside the file is made anew, too; those of the journal are not.
    assert found(anew, anew[-1].anchor) == []
    assert found(anew, anew[-1].anchor, *(one.anchor for one in rows)) == [(Flaw.CHANGED, at + 1, len(rows))]
    assert found(anew, rows[-1].anchor) == [(Flaw.CHANGED, len(rows), len(rows))]


def test_without_an_anchor_the_end_is_anybodys_guess() -> None:
    rows = chain([Note(0.0, Kind.SEEN, "a")] * 3)
    assert found(rows[:2]) == []
    assert found([]) == []
    assert found([], rows[-1].anchor) == [(Flaw.CUT_OFF, 1, 3)]


def test_what_is_known_to_be_gone_is_not_looked_for() -> None:
    rows = chain([Note(0.0, Kind.SEEN, "a")] * 9)
    rows[0] = forged(rows[0], act="b")
    assert found(rows[:2] + rows[4:], rows[-1].anchor, rows[1].anchor, since=5) == []
    assert found(rows[4:], rows[-1].anchor, since=4) == [(Flaw.REMOVED, 4, 4)]
    assert found(rows[:2], rows[-1].anchor) == [(Flaw.CHANGED, 1, 1), (Flaw.CUT_OFF, 3, 9)]


def test_a_break_is_told_in_a_sentence() -> None:
    assert str(Break(Flaw.CHANGED, 5, 5, "why")) == "The record 5 is changed: why."
    assert str(Break(Flaw.CUT_OFF, 5, 7, "why")) == "The records 5 to 7 are cut off: why."


def test_an_anchor_is_what_it_prints() -> None:
    anchor = Anchor(17, "ab" * 32)
    assert Anchor.parse(f"{anchor}\n") == anchor
    for wrong in ("", "17", "17:ab", f"x:{'ab' * 32}", f"-1:{'ab' * 32}", f"1:{'AB' * 32}"):
        assert Anchor.parse(wrong) is None


A, B = Anchor(5, "a" * 64), Anchor(5, "b" * 64)


@pytest.mark.parametrize(
    ("tail", "head", "after", "why"),
    [
        (None, None, START, "first record"),
        (A, A, A, ""),
        (Anchor(6, "c" * 64), A, Anchor(6, "c" * 64), ""),  # the daemon died before it could anchor it
        (Anchor(1, "c" * 64), None, Anchor(1, "c" * 64), ""),
        (A, None, A, "anchor is not there"),
        (None, A, A, "records 1 to 5 are not there"),
        (Anchor(3, "c" * 64), A, A, "records 4 to 5 are not there"),
        (A, B, B, "record 5 is not the one"),
    ],
)
def test_where_it_goes_on(tail: Anchor | None, head: Anchor | None, after: Anchor, why: str) -> None:
    at, said = going_on(tail, head)
    assert at == after
    assert (why in said) if why else not said


@given(TOLD)
def test_what_a_record_tells_is_bounded_and_harmless(told: dict[str, object]) -> None:
    assert json.loads(json.dumps(audit.bounded(told), allow_nan=False)) is not None


def test_what_is_too_long_or_harmful_is_cut() -> None:
    deep: dict[str, object] = {}
    for _ in range(50):
        deep = {"deep": deep}
    told = {
        "page": "\x1b[31m" + "x" * 9000,
        "many": [*range(900)],
        "odd": [math.inf, math.nan, {1, 2}],
        "deep": deep,
    }
    row = row_of(Note(0.0, Kind.SEEN, "a", actor="\x1b]0;x"), START)
    assert "\\\\x1b]0;x" in row.text
    record = record_of(row_of(Note(0.0, Kind.SEEN, "a", told=told), START))
    assert record is not None
    assert record.note.told["page"].startswith("\\x1b[31mxxx")
    assert len(record.note.told["page"]) < 600
    assert len(record.note.told["many"]) == 50
    assert record.note.told["odd"] == ["inf", "nan", "{1, 2}"]
    whole = record_of(
        row_of(Note(0.0, Kind.SEEN, "a", told={str(one): "x" * 499 for one in range(50)}), START)
    )
    assert whole is not None
    assert whole.note.told.keys() == {"left_out"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"number": 1}', "[" * 100_000, '{"kind": "odd"}', "\ud800"])
def test_what_is_no_record_is_none(text: str) -> None:
    assert record_of(Row(1, digest(text), text)) is None
    assert found([Row(1, digest(text), text)], Anchor(1, digest(text))) == [(Flaw.CHANGED, 1, 1)]


def test_a_kind_that_nobody_knows_is_no_record() -> None:
    (row,) = chain([Note(0.0, Kind.SEEN, "a")])
    assert record_of(forged(row, kind="odd")) is None


def test_a_deed_is_told_with_its_end() -> None:
    notes = [
        Note(0.0, Kind.BEGUN, "audit"),
        Note(1.0, Kind.ASKED, "cleanup", request="r1"),
        Note(2.0, Kind.ASKED, "restore", request="r2"),
        Note(3.0, Kind.DONE, "cleanup", request="r1", outcome="ok"),
        Note(4.0, Kind.SEEN, "profile.deleted"),
        Note(5.0, Kind.ASKED, "cleanup", request="r3"),
        Note(6.0, Kind.DONE, "cleanup", request="r3", outcome="disk_full"),
    ]
    records: list[Record] = [one for row in chain(notes)[::-1] if (one := record_of(row)) is not None]
    told = [(one.record.number, one.end and one.end.note.outcome) for one in deeds(records)]
    assert told == [(6, "disk_full"), (5, ""), (3, None), (2, "ok"), (1, "")]


def test_what_is_recorded_of_the_events() -> None:
    for name, fields in audit.SEEN.items():
        assert {*fields} <= {*EVENTS[name].fields}
    assert {*EVENTS} >= audit.EVIDENCE
    assert counts("profile.deleted", {})
    assert counts("health.remedy", {"remedy": "fresh"})
    assert not counts("health.remedy", {"remedy": "reload"})
    assert counts("sweep.finding", {"action": "save, delete", "outcome": "done"})
    assert not counts("sweep.finding", {"action": "delete", "outcome": "nothing"})
    assert not counts("sweep.finding", {"action": "report", "outcome": "done"})
    assert not counts("request.done", {})
