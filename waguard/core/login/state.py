"""How a client's login stands. Data only.

A login is what the phone has linked. It is in the profile's files, sooner or later on disk, and in snapshots.
"""

from dataclasses import dataclass
from enum import StrEnum

from waguard.core.model import Login, Reason


class Standing(StrEnum):
    NONE = "none"
    SCANNED = "scanned"
    """WhatsApp has taken it; it is neither seen on disk nor in a snapshot: a browser that is killed now loses it."""
    ON_DISK = "on_disk"
    """Its mark was seen on disk; no snapshot has it."""
    SAVED = "saved"
    """A snapshot has it; its mark was not yet seen on disk."""
    KEPT = "kept"
    """Both."""
    RESTORED = "restored"
    """A snapshot's, which WhatsApp has not taken yet."""
    DOUBTED = "doubted"
    """It looks damaged, and there is a snapshot: the next launch goes down the ladder."""
    LOST = "lost"
    """To damage, and no snapshot has it: somebody has to scan."""
    LOGGED_OUT = "logged_out"
    """The phone has unlinked it, or it was a snapshot's that is no longer valid: somebody has to scan."""


HELD = frozenset({Standing.SCANNED, Standing.ON_DISK, Standing.SAVED, Standing.KEPT})
"""The client was connected with its profile, and nobody has logged it out since."""
ON_DISK = frozenset({Standing.ON_DISK, Standing.KEPT})
UNSAVED = frozenset({Standing.SCANNED, Standing.ON_DISK})


@dataclass(frozen=True, slots=True)
class LoginState:
    standing: Standing = Standing.NONE
    snapshot: str = ""
    """Of one that is `RESTORED`: the snapshot it is from."""
    again: bool = False
    """Of one that is `RESTORED`: from the same snapshot as before, of which the page found nothing."""
    why: str = ""
    """Of one that is `DOUBTED`: what is wrong with it."""
    before: Standing = Standing.NONE
    """Of one that is `DOUBTED`: what it was taken for, which stays on record."""
    proved: bool = True
    """False: the profile was kept with no witness of what its files were, since a daemon died while its browser ran."""
    shown: bool = False
    """Its marks were in the page's storage in this launch."""
    asked: bool = False
    """The page has asked for a scan in this launch in spite of it."""
    taken_at: float | None = None
    """When WhatsApp has taken it in this launch, monotonic, seconds."""

    @property
    def on_record(self) -> Standing:
        return self.before if self.standing is Standing.DOUBTED else self.standing

    @property
    def held(self) -> bool:
        return self.on_record in HELD

    @property
    def at_stake(self) -> bool:
        """There is one, and nobody doubts it."""
        return self.standing in HELD or self.standing is Standing.RESTORED

    @property
    def may_be(self) -> bool:
        """The client was connected with it, or it was restored from a snapshot that had one."""
        return self.held or self.on_record is Standing.RESTORED

    @property
    def ended(self) -> Reason | None:
        """How the login has ended that the client had; None as soon as somebody has scanned."""
        return _ENDED.get(self.standing)

    @property
    def word(self) -> Login:
        """What people are told."""
        if self.on_record in HELD:
            return Login.ON_DISK if self.on_record in ON_DISK else Login.NEW
        return Login.RESTORED if self.on_record is Standing.RESTORED else Login.NONE

    @property
    def outlives_a_kill(self) -> bool | None:
        """It is on disk, or a snapshot has it. None: there is none."""
        return self.on_record is not Standing.SCANNED if self.may_be else None


_ENDED = {Standing.LOST: Reason.DAMAGED, Standing.LOGGED_OUT: Reason.LOGGED_OUT}
