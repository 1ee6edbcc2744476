"""Times, sizes and numbers as people write them."""

import re
import time


def number(wid: str | None) -> str:
    """As people write it: whatsapp's own form has more."""
    return f"+{wid.partition('@')[0].partition(':')[0]}" if wid else ""


def when(at: float | None) -> str:
    """A unix time as people here write it."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(count: int) -> str:
    """Bytes, for people."""
    if count < 1024:
        return f"{count} bytes"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def stages(ms: dict[str, float]) -> str:
    return ", ".join(f"{stage} {milliseconds(took)}" for stage, took in ms.items())


def milliseconds(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def seconds(text: str) -> float | None:
    """A span as people write it, such as ``90d``; None if that is none."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] if found else None


def age(since: float) -> str:
    """How long ago a unix time was."""
    seconds = max(0, int(time.time() - since))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
