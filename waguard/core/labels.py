"""Labels of clients, and which of them come first. Pure."""

import re
from enum import StrEnum

LABEL = r"[a-z0-9][a-z0-9_.-]{0,62}(=[A-Za-z0-9][A-Za-z0-9_.-]{0,62})?"
_LABEL = re.compile(LABEL, re.ASCII)
MOST_LABELS = 32


class Priority(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """The lowest one is first."""
        return -list(Priority).index(self)


def check_label(text: str) -> str:
    """The text as a label. Raises `ValueError` that says what would be right."""
    if not _LABEL.fullmatch(text):
        raise ValueError(
            f"{text[:80]!r} is not a label: write a word like sales, or a pair like team=north; a word has small letters, digits, "
            "_ . and -"
        )
    return text
