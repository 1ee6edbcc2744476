"""The audit: records of what was done with special rights, each chained to the one before, and whether a chain of them is whole. Pure.

A record is a line of JSON that has the hash of the one before in it; its own hash is the SHA-256 of that line. Whoever changes one
has to change all that come after it, and what was said of the newest ones elsewhere: the anchors.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from waguard.core.plain_text import plain

GENESIS = "0" * 64
"""In the place of the hash before the first record."""
BY_ITSELF = "daemon"
"""The actor of what nobody has asked for."""
_LONGEST, _MOST, _DEEPEST = 500, 50, 6
"""Characters of a text, items of a list or table, and how deep one may be in another."""
_LARGEST = 16_384
"""Characters of what a record tells besides."""
_ANCHOR = re.compile(r"(\d{1,18}):([0-9a-f]{64})\s*")


class Kind(StrEnum):
    BEGUN = "begun"
    """A chain begins, or goes on after something that is gone; ``told`` says why."""
    ASKED = "asked"
    """An act is about to be done."""
    DONE = "done"
    """It has ended."""
    SEEN = "seen"
    """What was done without being asked for at the control port, told afterwards."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be recorded."""

    at: float
    """Unix time, seconds."""
    kind: Kind
    act: str
    """What it is called; of what was seen, the event."""
    actor: str = BY_ITSELF
    origin: str = ""
    request: str = ""
    client: str = ""
    outcome: str = ""
    """``ok``, or the error's code; empty until it is known."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What was asked, or what was done."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Which record was the newest, said in another place than among them."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Anchor | None":
        """``NUMBER:HASH``; None if it is none."""
        found = _ANCHOR.fullmatch(text)
        return cls(int(found[1]), found[2]) if found else None


START = Anchor(0, GENESIS)


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it is kept: its text, byte for byte."""

    number: int
    hash: str
    text: str

    @property
    def anchor(self) -> Anchor:
        return Anchor(self.number, self.hash)


@dataclass(frozen=True, slots=True)
class Record:
    number: int
    hash: str
    note: Note
    previous: str
    """The hash of the one before."""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def row_of(note: Note, before: Anchor) -> Row:
    """The record that comes after that one."""
    number = before.number + 1
    said = {
        "number": number,
        "previous": before.hash,
        "at": round(note.at, 3),
        "kind": note.kind.value,
        "act": note.act,
        **{name: plain(str(value), _LONGEST) for name, value in _named(note).items() if value},
        "told": bounded(note.told),
    }
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return Row(number, digest(text), text)


def _named(note: Note) -> Mapping[str, str]:
    return {
        "actor": note.actor,
        "origin": note.origin,
        "request": note.request,
        "client": note.client,
        "outcome": note.outcome,
    }


def bounded(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a record may tell of it: harmless, and no more than is sane."""
    cut = {str(name): _cut(value, 0) for name, value in [*told.items()][:_MOST]}
    size = len(json.dumps(cut))
    return cut if size <= _LARGEST else {"left_out": f"{size} characters"}


def _cut(value: Any, depth: int) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if value - value == 0 else str(value)  # JSON has neither infinity nor NaN
        case Mapping() if depth < _DEEPEST:
            return {plain(str(name), 80): _cut(one, depth + 1) for name, one in [*value.items()][:_MOST]}
        case list() | tuple() if depth < _DEEPEST:
            return [_cut(one, depth + 1) for one in value[:_MOST]]
        case _:
            return plain(str(value), _LONGEST)


def record_of(row: Row) -> Record | None:
    """What it says; None if that is nothing that we write."""
    try:
        match json.loads(row.text):
            case {
                "number": int(number),
                "previous": str(previous),
                "at": int() | float() as at,
                "kind": str(kind),
                "act": str(act),
                "told": dict(told),
                **more,
            }:
                names = ("actor", "origin", "request", "client", "outcome")
                named = {name: str(more[name]) for name in names if name in more}
                return Record(number, row.hash, Note(at, Kind(kind), act, told=told, **named), previous)
    except (ValueError, RecursionError):
        pass
    return None


def going_on(tail: Anchor | None, head: Anchor | None) -> tuple[Anchor, str]:
    """After which record the next one comes, by the newest that is there and by the anchor; and why a chain begins there, if one does."""
    if tail is None or (head is not None and tail.number < head.number):
        if head is None:
            return START, "It is the first record."
        gone = f"{tail.number + 1 if tail is not None else 1} to {head.number}"
        return head, f"The records {gone} are not there, and the anchor has {head.number}."
    if head is None:
        # A daemon that dies between the two has written the first record alone.
        return tail, "" if tail.number == 1 else "The anchor is not there, or cannot be read."
    if tail.number == head.number and tail.hash != head.hash:
        return head, f"The record {tail.number} is not the one that the anchor has."
    return tail, ""


# --- is it whole? -------------------------------------------------------------------------------------------


class Flaw(StrEnum):
    CHANGED = "changed"
    REMOVED = "removed"
    CUT_OFF = "cut off"
    """Removed at the end."""
    ADDED = "added"
    """It is where none was written, or no anchor has it."""


@dataclass(frozen=True, slots=True)
class Break:
    flaw: Flaw
    first: int
    last: int
    why: str

    def __str__(self) -> str:
        which = (
            f"record {self.first} is"
            if self.first == self.last
            else f"records {self.first} to {self.last} are"
        )
        return f"The {which} {self.flaw}: {self.why}."


def breaks(rows: Iterable[Row], anchors: Iterable[Anchor], since: int = 1) -> Sequence[Break]:
    """What is wrong with a chain, in its order. ``rows``: the newest first; those before ``since`` are not looked at."""
    known: dict[int, set[str]] = {}
    for anchor in anchors:
        if anchor.number >= since:
            known.setdefault(anchor.number, set()).add(anchor.hash)
    found: list[Break] = []
    above: int | None = None
    told: str | None = None
    for row in rows:
        if 1 <= row.number < since:
            break
        if row.number < 1 or (above is not None and row.number >= above):
            found.append(Break(Flaw.ADDED, row.number, row.number, "no record has this number"))
            continue
        found += _missing(row.number, above, max(known, default=None))
        told = told if above == row.number + 1 else None
        above = row.number
        why, told = _wrong(row, told, known.get(row.number, set()))
        if why:
            _changed(found, row.number, why)
    if above is None:
        if most := max(known, default=0):
            found.append(Break(Flaw.CUT_OFF, since, most, f"an anchor has {most}, and there is none"))
    elif above > since:
        found.append(Break(Flaw.REMOVED, since, above - 1, f"the first that is there is {above}"))
    return found[::-1]


def _missing(number: int, above: int | None, most: int | None) -> Iterator[Break]:
    """What should be between this record and the one that comes after it, or the anchors."""
    if above is None and most is not None:
        if most > number:
            yield Break(Flaw.CUT_OFF, number + 1, most, f"an anchor has {most}, and the last is {number}")
        elif most < number:
            yield Break(Flaw.ADDED, most + 1, number, f"the newest anchor has {most}")
    elif above is not None and above > number + 1:
        yield Break(Flaw.REMOVED, number + 1, above - 1, f"{above} comes after {number}")


def _wrong(row: Row, told: str | None, known: set[str]) -> tuple[str, str | None]:
    """Why it is not what was written; and what it says of the one before, if it can be believed. ``told``: what the next one says of it."""
    record = record_of(row)
    if digest(row.text) != row.hash:
        return "its hash is of something else", None
    if record is None or record.number != row.number:
        return "it does not say what a record says", None
    if told is not None and told != row.hash:
        return "the next one was written after another", None
    if known - {row.hash}:
        return "an anchor has another hash", None
    return "", record.previous


def _changed(found: list[Break], number: int, why: str) -> None:
    """Neighbours that are changed alike are told in one."""
    last = found[-1] if found else None
    if last is not None and (last.flaw, last.first, last.why) == (Flaw.CHANGED, number + 1, why):
        found[-1] = Break(Flaw.CHANGED, number, last.last, why)
    else:
        found.append(Break(Flaw.CHANGED, number, number, why))


# --- what was done ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordedAct:
    """An act with its end, or what was told afterwards."""

    record: Record
    end: Record | None
    """None: nobody has recorded one. It is under way, or the daemon has died in it."""


def deeds(records: Iterable[Record]) -> Iterator[RecordedAct]:
    """``records``: the newest first, and so is what comes of them."""
    ends: dict[tuple[str, str], Record] = {}
    for one in records:
        key = (one.note.request, one.note.act)
        if one.note.kind is Kind.DONE:
            ends[key] = one
        elif one.note.kind is Kind.ASKED:
            yield RecordedAct(one, ends.pop(key, None))
        else:
            yield RecordedAct(one, one)


SEEN: Mapping[str, Mapping[str, Sequence[str]]] = {
    "health.remedy": {"remedy": ("restore", "fresh")},
    "profile.restored": {},
    "profile.damaged": {},
    "profile.deleted": {},
    "login.lost": {},
    "snapshot.deleted": {},
    "sweep.finding": {"action": ("kill", "delete", "retire"), "outcome": ("done", "failed")},
    "relay.attached": {},
    "relay.detached": {},
}
"""These events are recorded, where each of the fields that are named has one of these words in it: what the daemon ends, replaces or deletes by
itself, and who drives a page."""
EVIDENCE = frozenset(
    {
        *SEEN,
        *("cleanup.step", "snapshot.taken", "session.changed", "attempt.done", "connect.refused"),
        *("token.created", "token.rotated", "token.revoked"),
        *("webhook.created", "webhook.changed", "webhook.rotated", "webhook.deleted"),
    }
)
"""What an act has done, as far as one of these tells it."""


def counts(event: str, fields: Mapping[str, Any]) -> bool:
    """Whether an event is recorded."""
    wanted = SEEN.get(event)
    return wanted is not None and all(
        any(word in str(fields.get(name, "")) for word in words) for name, words in wanted.items()
    )
