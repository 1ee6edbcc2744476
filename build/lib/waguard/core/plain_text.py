"""What a page, an archive or another program says, made harmless for whoever reads it. Pure.

Escape sequences move cursors and change titles, bidi overrides show a name as another one, lone surrogates have no encoding.
Everything that leaves by a log, a terminal or an answer passes here.
"""

import re
from collections.abc import Mapping
from typing import Any

MOST = 16_384
"""Characters that are told of one text."""
_MOST_DEPTH = 20
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_IN_A_LINE = re.compile(r"[\t\n]")


def plain(text: str, most: int = MOST, *, lines: bool = False) -> str:
    """The text with what is harmful in it spelled out, as backslash and number; no longer than ``most``.

    Ends of lines and tabs stay only where ``lines`` may be several.
    """
    cut = text[:most]
    harmless = _HARMFUL.sub(_spelled, cut)
    if not lines:
        harmless = _IN_A_LINE.sub(_spelled, harmless)
    left = len(text) - most
    return f"{harmless} ... ({left} more characters)" if left > 0 else harmless


def _spelled(found: "re.Match[str]") -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def plain_data(value: Any, depth: int = 0) -> Any:
    """The same of all text in what a log line or an answer is made of; what is deeper than sane is left out."""
    if isinstance(value, str):
        return plain(value, lines=True)
    if depth == _MOST_DEPTH and isinstance(value, Mapping | list | tuple | set | frozenset):
        return "..."
    if isinstance(value, Mapping):
        return {
            plain(key) if isinstance(key, str) else key: plain_data(one, depth + 1)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_data(one, depth + 1) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return plain(str(value), lines=True)


def plain_json(text: str) -> str:
    """JSON that means the same, with what is harmful in it escaped."""
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
