"""The QR code: is it still one that a phone can scan?"""

from collections.abc import Mapping

from waguard.core.health import Fault
from waguard.core.model import PASSKEYS, Link, Reading

FAULTS = frozenset({Fault.QR_STALE})


def judge(reading: Reading, age_s: float, stale_s: float) -> Mapping[Fault, str]:
    """``age_s``: since the code, or that there is none any more, was first seen. The oldest that lives is 60 s old."""
    if reading.link is not Link.AWAITING_SCAN or reading.reason in PASSKEYS or age_s < stale_s:
        return {}
    what = "no new code has come" if reading.qr is None else "the same code is shown"
    return {Fault.QR_STALE: f"{what} for {age_s:.0f} s"}
