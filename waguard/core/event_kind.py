"""What is said of an event in the catalogue. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Kind:
    says: str
    fields: Sequence[str] = ()
    levels: Sequence[Level] = ("info",)
    """The first one is meant where nothing is said."""
    differs: Mapping[str, str] | None = None
    """What a field means here, if that is something else than elsewhere."""
    details: bool = False
    """It has the details of an error besides."""
    asked: bool = False
    """A wish may cause it: then it has `OF_AN_ACTOR` besides."""


def kind(
    says: str,
    fields: str = "",
    *levels: Level,
    differs: Mapping[str, str] | None = None,
    details: bool = False,
    asked: bool = False,
) -> Kind:
    return Kind(says, tuple(fields.split()), levels or ("info",), differs, details, asked)
