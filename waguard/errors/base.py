"""What all errors have."""

from collections.abc import Mapping
from typing import Any, ClassVar

BY_CODE: dict[str, "type[WaguardError]"] = {}
"""Every kind by its code, to make an error again of one that was carried as data."""


class WaguardError(Exception):
    """Base of all errors that are shown to people or other programs."""

    code: str = "internal"
    http: ClassVar[int] = 500
    """The HTTP status; 0 if the kind is never an answer."""
    again: ClassVar[bool] = False
    """Whether the same request may succeed later without anybody changing anything."""
    do: ClassVar[str] = ""
    """What somebody can do about it."""
    lasting: ClassVar[bool] = False
    """Trying again does not help: a person has to mend something."""
    passing: ClassVar[bool] = False
    """The host's want of a moment: it is tried again, and counts against nobody."""

    def __init_subclass__(cls, code: str = "", http: int = 500, *, again: bool = False) -> None:
        """Without a code: a group of kinds, or a kind of its parent's code."""
        if code in BY_CODE:
            raise TypeError(f"{cls.__name__}: the code {code} is {BY_CODE[code].__name__}'s")
        if code:
            cls.code, cls.http, cls.again = code, http, again
            BY_CODE[code] = cls

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: Mapping[str, Any] = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()
