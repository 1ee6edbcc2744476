"""Names that others have given to files, made harmless for whoever writes or saves one. Pure."""

import re
import unicodedata

MOST = 120
"""Bytes."""
_MOST_SUFFIX = 20
NAMELESS = "file"


def file_name(given: str) -> str:
    """The last part of a path, without what no name should have: controls, overrides of direction, half of a surrogate pair, a dot in front.

    No longer than `MOST`, and never empty.
    """
    last = re.split(r"[/\\]", given)[-1]
    kept = "".join(one for one in last if unicodedata.category(one)[0] != "C")
    name = " ".join(kept.split()).lstrip(". ")
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix.encode()) > _MOST_SUFFIX:
        stem, dot, suffix = name, "", ""
    room = MOST - len(f"{dot}{suffix}".encode())
    return f"{stem.encode()[:room].decode(errors='ignore').rstrip()}{dot}{suffix}" or NAMELESS
