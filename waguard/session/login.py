"""The login of a client: what is on record of it, what the page tells of it, and what follows from that."""

import asyncio
import time
from dataclasses import replace

from waguard.backup.store import about_of
from waguard.browser.launch import Browser
from waguard.core.login import Judgement, judge
from waguard.core.model import Link, Login, Reading, Reason, Verdict
from waguard.errors import WaguardError
from waguard.profile import leveldb, login
from waguard.profile.examiners import Evidence, Report
from waguard.session.instance import Instance
from waguard.system.files import in_thread

_FULL = "No space left"
"""In what Chromium says of a database that it could not open."""
_LOOK_S = 0.5
"""How often is looked whether a login has reached the disk, in seconds."""


class ClientLogin:
    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.distrust = ""
        """Why the kept profile is damaged, if the browser has found it so."""
        self.newest_snapshot = ""
        """As of the last time that somebody looked."""

    @property
    def has_login(self) -> bool:
        """The client was connected with its profile, and nobody has logged it out since."""
        return self._instance.record.login

    @property
    def standing(self) -> Login:
        """What is on record of the profile's login."""
        if not self._instance.record.login:
            return Login.RESTORED if self._instance.record.restored else Login.NONE
        return Login.ON_DISK if self._instance.record.marked else Login.NEW

    @property
    def unsaved(self) -> bool:
        """The login was scanned, and there is no snapshot of it yet."""
        return self._instance.record.unsaved

    @property
    def saved(self) -> bool | None:
        """Whether the login outlives a browser that is killed now: it is on disk, or a snapshot has it. None: there is none."""
        if self.standing is Login.NONE:
            return None
        return self.standing is not Login.NEW or not self._instance.record.unsaved

    @property
    def ended(self) -> Reason | None:
        """How the login has ended that the client had; None as soon as somebody has scanned."""
        return self._instance.record.ended

    @property
    def may_have_login(self) -> bool:
        """The same, or it was restored from a snapshot that had one."""
        return self._instance.record.login or bool(self._instance.record.restored)

    async def see_mark(self) -> bool:
        """Whether the login's mark is on disk by now; that it was seen is remembered. Raises `StorageFailed`."""
        profile = self._instance.memory.profile
        if not self._instance.record.marked and profile is not None and self._instance.record.login:
            await self._instance.save(
                marked=await in_thread(login.marked, profile.path, self._instance.origin)
            )
        return self._instance.record.marked

    async def note_saved(self) -> None:
        """There is a snapshot of it."""
        await self._instance.save(unsaved=False)

    def hear_logged_out(self) -> bool:
        """The page's address says that it was logged out; whether that is news."""
        memory = self._instance.memory
        known, memory.logged_out = memory.logged_out, True
        return not known

    async def settle(self, limit_s: float) -> None:
        """Wait until the login of a client that has just been connected is on disk, ``limit_s`` after that at most.

        Chromium writes localStorage late, and by when cannot be asked: its mark is looked for. Raises `StorageFailed`.
        """
        while (
            self._instance.browser is not None
            and self._instance.memory.accepted_at
            and time.monotonic() < self._instance.memory.accepted_at + limit_s
        ):
            if await self.see_mark():
                return
            await asyncio.sleep(_LOOK_S)

    async def judge(self, reading: Reading) -> Reading | None:
        """What the page tells of the login, with what follows from it; none if it was lost and there is a snapshot of it.

        The launch is of no use then: the next one goes down the ladder.
        """
        memory = self._instance.memory
        if self._instance.browser is None:
            return reading
        memory.had = memory.had or reading.marks is True
        found = judge(
            reading,
            login=self._instance.record.login,
            restored=bool(self._instance.record.restored),
            had=memory.had or memory.accepted_at > 0,
        )
        match found:
            case Judgement.ACCEPTED:
                await self._note_accepted()
            case Judgement.REFUSED if why := await in_thread(self._damage_of, self._instance.browser):
                if not await self._note_lost(why):  # an older one may do
                    return None
            case Judgement.REFUSED:
                await self._note_refused()
            case Judgement.UNPAIRED if why := self._instance.browser.damage or await in_thread(
                self._instance.custody.wiped
            ):
                if not await self._note_lost(why):
                    return None
            case Judgement.UNPAIRED:
                memory.unpaired = True
                return replace(reading, reason=Reason.UNPAIRED)
            case Judgement.LOST:
                why = await in_thread(self._damage_of, self._instance.browser)
                if not await self._note_lost(why or "it is gone, and nobody has logged it out"):
                    return None
            case Judgement.LOGGED_OUT:
                why = await in_thread(self._damage_of, self._instance.browser)
                if not await (self._note_lost(why) if why else self._note_logged_out()):
                    return None
        # A page that waits for a passkey, say, has words of its own.
        plain = (reading.link, reading.reason) == (Link.AWAITING_SCAN, None)
        asks_scan = plain or reading.reason is Reason.LOGGED_OUT
        return (
            replace(reading, reason=self._instance.record.ended or reading.reason) if asks_scan else reading
        )

    async def _note_accepted(self) -> None:
        record, unsaved, memory = self._instance.record, self._instance.record.unsaved, self._instance.memory
        if not record.login:  # a new one, or one that was restored
            memory.accepted_at, memory.logged_out = 0.0, False
            unsaved = not record.restored
        unsaved, memory.unpaired = unsaved or memory.unpaired, False
        if not memory.accepted_at:
            await self.hold()
        memory.accepted_at = memory.accepted_at or time.monotonic()
        launch = replace(record.launch, accepted=True) if record.launch is not None else None
        await self._instance.save(launch=launch, login=True, unsaved=unsaved, restored="", ended=None)

    async def hold(self) -> None:
        """What is wiped from here on had the login."""
        if (profile := self._instance.memory.profile) is None:
            return
        try:
            await in_thread(self._instance.custody.hold, profile)
        except WaguardError as error:
            self._instance.publish("profile.unwitnessed", code=error.code, error=error.message)

    async def _note_logged_out(self) -> bool:
        """False: the launch is of no use.

        A page that finds its storage empty may say the same. Where that cannot be ruled out a snapshot is worth one try.
        """
        if (
            not self._instance.memory.proved
            and not self._instance.memory.accepted_at
            and await self._has_snapshot()
        ):
            self.distrust = "it says that it was logged out, but what its files were is not known"
            self._instance.publish("login.doubted", why=self.distrust)
            return False
        await self._end_login(Reason.LOGGED_OUT)
        return True

    async def _end_login(self, how: Reason) -> None:
        """There is none any more, and a person has to scan."""
        self._instance.memory.had, self._instance.memory.accepted_at = False, 0.0
        await in_thread(self._instance.custody.let_go)
        await self._instance.save(login=False, marked=False, unsaved=False, restored="", ended=how)

    async def find_snapshot(self) -> bool:
        """Look for one that the profile could be restored from; `newest_snapshot` is its id."""
        profile, self.newest_snapshot = self._instance.memory.profile, ""
        if profile is not None and self._instance.record.login:
            found = await in_thread(
                self._instance.resources.backups.candidates,
                self._instance.code,
                profile.lineage,
                self._instance.origin,
            )
            self.newest_snapshot = found[0].id if found else ""
        return bool(self.newest_snapshot)

    async def _has_snapshot(self) -> bool:
        profile = self._instance.memory.profile
        assert profile is not None  # noqa: S101 (a browser uses it)
        if await in_thread(
            self._instance.resources.backups.candidates,
            self._instance.code,
            profile.lineage,
            self._instance.origin,
        ):
            return True
        sealed = await in_thread(about_of, profile.sealed)
        return sealed is not None and sealed.login

    def _damage_of(self, browser: Browser) -> str:
        """What the browser, or what it has made anew, tells of a database that was lost."""
        profile, launch = self._instance.memory.profile, self._instance.record.launch
        if damage := browser.damage or self._instance.custody.wiped():
            return damage
        if profile is None or launch is None or self._instance.memory.accepted_at:
            return ""
        for database in login.databases(profile.path, self._instance.origin):
            try:
                if leveldb.made_anew(database, launch.started_at):
                    return f"{database.name} was missing and has been made anew"
            except OSError:
                continue
        return ""

    async def _note_refused(self) -> None:
        backup = self._instance.record.restored
        what = f"that of snapshot {backup} is no longer valid, WhatsApp did not take it: a scan is needed"
        self._instance.memory.check = _found(what, Verdict.SUSPECT)
        self._instance.publish("backup.login_refused", backup=backup)
        await self._mark_refused()
        await self._end_login(Reason.LOGGED_OUT)

    async def _mark_refused(self) -> None:
        """The snapshot that the profile was restored from is not offered again."""
        backup = self._instance.record.restored
        try:
            await in_thread(self._instance.resources.backups.mark_refused, self._instance.code, backup)
        except WaguardError as error:
            self._instance.publish("backup.mark_failed", backup=backup, error=error.message)

    async def _note_lost(self, why: str) -> bool:
        """False: the launch is of no use."""
        self._instance.publish("login.lost", why=why)
        if self._instance.record.restored and _FULL not in why:  # on a full disk it may be as sound as ever
            await self._mark_refused()
        if await self._has_snapshot():
            self.distrust = why
            return False
        self._instance.memory.check = _found(why)
        await self._end_login(Reason.DAMAGED)
        return True


def _found(what: str, verdict: Verdict = Verdict.DAMAGED) -> Report:
    return Report((Evidence("page", verdict, "login", what),))
