"""A copy of the sessions that has lost what a copy may lose gives each client its login back, or says loudly what is missing."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Daemon, Journal

from waguard.cli.checks import storage
from waguard.config.sections import Config
from waguard.core.model import ClientCode, Status
from waguard.errors import ConfigError, RecordUnavailable
from waguard.profile.store import Profiles

DEMO = ClientCode("demo")
QUICK = {"settle_s": 0.1}


def left_out(link: Path) -> None:
    """By rsync without -l, or an S3 bucket."""
    link.unlink()


def followed(link: Path) -> None:
    """By scp -r: the profile is there twice."""
    target = link.resolve()
    link.unlink()
    shutil.copytree(target, link)


def followed_alone(link: Path) -> None:
    """By whatever leaves out names with a dot."""
    target = link.resolve()
    link.unlink()
    target.rename(link)


def written_down(link: Path) -> None:
    """As git does where there are no links."""
    target = link.readlink()
    link.unlink()
    link.write_text(str(target))


def rubbish(link: Path) -> None:
    link.unlink()
    link.write_bytes(b"\xff\0")


COPIES = (left_out, followed, followed_alone, written_down, rubbish)


def earlier(sessions: Path) -> None:
    """As a version before has written the record."""
    record = sessions / "demo" / "session.json"
    data = json.loads(record.read_bytes())
    assert data.pop("generation") == (sessions / "demo" / "profile").resolve().name
    record.write_text(json.dumps(data))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("copied", COPIES)
async def test_a_copy_without_its_links_gives_each_login_back(
    pose: Daemon, journal: Journal, sessions_dir: Path, copied: Callable[[Path], None], *, old: bool
) -> None:
    async with pose("connected", snapshots=QUICK) as (supervisor, _):
        await supervisor.connect(DEMO)
        await supervisor.snapshot(DEMO)
        await supervisor.disconnect(DEMO)
    link = sessions_dir / "demo" / "profile"
    profile = link.resolve()
    (profile / "mine").write_text("kept")
    if old:
        earlier(sessions_dir)
    copied(link)
    async with pose("connected", snapshots=QUICK) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        assert (view.status, view.profile) == (Status.CONNECTED, "kept")
    assert (link / "mine").read_text() == "kept"
    assert link.is_symlink()
    if not (old and copied is followed_alone):
        assert link.resolve() == profile
    assert link.resolve().name.split("-")[1] == profile.name.split("-")[1], "its snapshots may still stand in"
    assert [event.client for event in journal.named("profile.link_mended")] == [DEMO]
    assert not list((sessions_dir / ".retired").glob("*ownerless*"))


async def test_where_nobody_knows_nothing_is_started_in_its_place(
    pose: Daemon, sessions_dir: Path, journal: Journal
) -> None:
    async with pose("connected", snapshots={"settle_s": 3600}) as (supervisor, _):
        await supervisor.connect(DEMO)
    link = sessions_dir / "demo" / "profile"
    profile = link.resolve()
    earlier(sessions_dir)
    left_out(link)
    async with pose("connected") as (supervisor, _):
        for verb in (supervisor.connect, supervisor.restart):
            with pytest.raises(RecordUnavailable, match="is gone, its client has a login") as caught:
                await verb(DEMO)
            assert f"ln -sfn ../.profiles/GENERATION {link}" in str(caught.value)
        await supervisor.reap(dry_run=False)
    assert profile.is_dir()
    assert journal.named("profile.not_found")
    link.symlink_to(f"../.profiles/{profile.name}")
    async with pose("connected") as (supervisor, _):
        assert (await supervisor.connect(DEMO)).profile == "kept"


async def test_a_link_that_is_lost_while_the_daemon_runs_is_made_again(
    pose: Daemon, sessions_dir: Path
) -> None:
    async with pose("connected") as (supervisor, _):
        await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
        left_out(sessions_dir / "demo" / "profile")
        assert (await supervisor.connect(DEMO)).profile == "kept"


async def test_what_was_dropped_stays_dropped(pose: Daemon, sessions_dir: Path, journal: Journal) -> None:
    async with pose("connected") as (supervisor, _):
        await supervisor.connect(DEMO)
        await supervisor.cleanup(DEMO)
        assert json.loads((sessions_dir / "demo" / "session.json").read_bytes())["generation"] == ""
    async with pose("connected") as (supervisor, _):
        assert (await supervisor.connect(DEMO)).profile == "fresh"
    assert not journal.named("profile.link_mended")


async def test_a_directory_of_somebody_elses_is_left_alone(pose: Daemon, sessions_dir: Path) -> None:
    theirs = sessions_dir / "theirs" / "profile" / "letter"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("dear")
    async with pose():
        pass
    assert theirs.read_text() == "dear"


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "symlink", refuses)


@pytest.mark.usefixtures("without_links")
async def test_a_file_system_without_links_is_said_at_the_start(pose: Daemon) -> None:
    with pytest.raises(ConfigError, match="has no symbolic links"):
        async with pose():
            pass


@pytest.mark.usefixtures("without_links")
def test_a_file_system_without_links_is_said_by_doctor(sessions_dir: Path) -> None:
    sessions_dir.mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match="has no symbolic links"):
        storage.sessions(Config.model_validate({"sessions": {"dir": sessions_dir}}))


def test_links_that_have_gone_since_the_start_are_said_too(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    profiles = Profiles(tmp_path, None)
    profiles.make_room()
    request.getfixturevalue("without_links")
    with pytest.raises(ConfigError, match="has no symbolic links"):
        profiles.create(DEMO)
