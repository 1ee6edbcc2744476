"""What a page tells of the login that its profile had: kept, refused, lost to damage, or logged out. Pure."""

from enum import StrEnum

from waguard.core.model import PASSKEYS, Link, Reading, Reason


class Judgement(StrEnum):
    NOTHING = "nothing"
    """It tells nothing of it, or there was none."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    """WhatsApp does not take the login of the snapshot that the profile was restored from."""
    LOST = "lost"
    """It is gone, and nobody has logged it out."""
    LOGGED_OUT = "logged_out"
    UNPAIRED = "unpaired"
    """The page takes no notice of it, or cannot read it: it is not lost yet."""


def judge(reading: Reading, *, login: bool, restored: bool, had: bool) -> Judgement:
    """``login``: the client was connected with this profile; ``restored``: it is from a snapshot, and was not connected yet;
    ``had``: the page had the login in this launch.
    """
    if reading.link in {Link.SYNCING, Link.CONNECTED}:
        return Judgement.ACCEPTED
    if reading.reason in PASSKEYS:
        return Judgement.NOTHING
    logged_out = reading.reason is Reason.LOGGED_OUT
    if reading.link is not Link.AWAITING_SCAN and not logged_out:
        return Judgement.NOTHING
    if (login or restored) and not logged_out and reading.marks is not False:
        return Judgement.UNPAIRED
    if restored:
        return Judgement.REFUSED
    if not login:
        return Judgement.NOTHING
    # A page that was logged out says so in its address. So may one that finds only IndexedDB empty. What a page had, it takes
    # out of its storage itself, or its browser has wiped it, which shows on disk.
    return Judgement.LOGGED_OUT if logged_out or had else Judgement.LOST
