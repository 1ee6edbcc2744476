"""One client's files, without a daemon."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import damage
from bare_browser import NOBODY
from written import VERSION, Written

from waguard.config.sections import Config
from waguard.core.model import ClientCode, Source
from waguard.profile import login_files, witness
from waguard.profile.generation import Retired
from waguard.profile.store import Profiles
from waguard.profile.witness import Witness
from waguard.sandbox import User
from waguard.sandbox.plain import Plain
from waguard.session.custody import Custody
from waguard.session.ladder import Ladder, Taken
from waguard.snapshots.keys import Key, Keyring
from waguard.snapshots.store import Snapshot, Snapshots
from waguard.upkeep.sweep import Act, Scene, leftovers

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
RING = Keyring([Key("k1", bytes(32))], Path("keys"))
GO = threading.Event()
USER = User("nobody", NOBODY, NOBODY) if os.geteuid() == 0 else None
BESIDE = shutil.ignore_patterns(
    *("Cache_Data", "Code Cache", "GPUCache", "Dawn*", "Shared Dictionary", "Session Storage"),
    *("Persistent*", "blob_storage", "shared_proto_db", "DIPS", "declarative_*"),
)
"""Caches and the like, two thirds of the files: each would be copied, deleted and died at for every crash."""


class House:
    """One client's files as a daemon has them, and what a daemon that starts anew would see."""

    def __init__(self, root: Path, written: Written, runtime: Path | None = None) -> None:
        self.root, self.written, self.runtime = root, written, runtime
        self.generation = ""
        """As on record."""
        self.again()
        self.profiles.make_room()
        self.snapshots.make_room()

    def again(self) -> None:
        """As after a restart of the daemon."""
        self.profiles = Profiles(self.root, USER, self.runtime)
        self.snapshots = Snapshots(self.root, RING)
        self.custody = Custody(DEMO, self.written.origin, VERSION, self.profiles, self.snapshots, Plain(None))

    def log_in(self) -> str:
        """A profile with the login, as its browser left it; its generation."""
        profile = self.profiles.create(DEMO)
        profile.path.rmdir()
        shutil.copytree(self.written.profile, profile.path, symlinks=True, ignore=BESIDE)
        for path in (profile.path, *profile.path.rglob("*")):
            if USER is not None:
                os.chown(path, USER.uid, USER.gid, follow_symlinks=False)
        marks = witness.take(profile.path, self.written.origin, {})
        witness.write(profile.witness, Witness(VERSION, marks))
        self.generation = profile.generation
        return profile.generation

    def snapshot(self, reason: str = "request") -> Snapshot:
        room = self.root / "room"
        room.mkdir()
        about = self.custody.copy(room, reason, has_login=True, held_still=None)
        snapshot = self.snapshots.take(GO, room, about)
        shutil.rmtree(room)
        return snapshot

    def take(self, source: Source | None = None, damage_reason: str = "") -> Taken:
        taken = Ladder(self.custody).take(
            GO, source, damage_reason, has_login=True, generation=self.generation
        )
        self.generation = taken.profile.generation
        self.custody.drop_lock()
        return taken

    def spoil(self) -> None:
        """The profile can no longer be read."""
        profile = self.profiles.current(DEMO)
        assert profile is not None
        damage.zero(damage.manifest(damage.indexed_db(profile.path)))

    def login_at(self, top: Path) -> dict[str, bytes]:
        return {name: (top / name).read_bytes() for name in login_files.part(top, self.written.origin)}

    def has_login(self, top: Path) -> bool:
        """Whether the databases are what the browser had written; LevelDB's own log of itself does not count."""
        here, there = self.login_at(top), self.login_at(self.written.profile)
        return all(here.get(name) == data for name, data in there.items() if "leveldb" in name)

    def sweep(self) -> list[str]:
        """What a daemon does with the files at its start; what it found."""
        linked = {}
        _, profile = self.profiles.find(DEMO)
        if profile is not None:
            linked[profile.generation] = DEMO
        scene = Scene(
            Config(),
            self.profiles,
            self.snapshots,
            {},
            (),  # no finder of leftovers asks for processes
            linked,
            self.save,
            time.time(),
            starting=True,
        )
        found = list(leftovers.find(scene))
        if found:
            asyncio.run(carry_out([proposal.act for proposal in found]))
        return [proposal.finding.kind for proposal in found]

    async def save(self, retired: Retired) -> tuple[Retired, str]:
        return self.profiles.aside.mark_saved(retired), "saved"

    def retired(self) -> list[str]:
        return [f"{one.generation}.{one.reason}" for one in self.profiles.aside.all()]


async def carry_out(acts: Sequence[Act | None]) -> None:
    for act in acts:
        assert act is not None
        await act()
