"""``waguard check``: each thing that may be wrong with a login at rest has its line, and nothing is changed by looking."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import damage
import pytest
from bare_browser import BINARY, NOBODY
from commands import ADMIN, Port, always, call
from damage import locked
from hanging_disk import hanging_disks
from snapshots import GO, OTHER
from views import CONNECTED
from written import VERSION, Written

from waguard.cli import check as checking
from waguard.cli.exits import ExitCode
from waguard.core.model import ClientCode
from waguard.profile import examiners, witness
from waguard.profile.generation import Profile
from waguard.profile.store import Profiles
from waguard.snapshots import keys
from waguard.snapshots.keys import Keyring
from waguard.snapshots.packing import About
from waguard.snapshots.store import Snapshot, Snapshots

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")]

DEMO, OTHERS = ClientCode("demo"), ClientCode("demo2")


class Logins:
    """A sessions directory with two clients, each with a profile at rest and two snapshots of it."""

    def __init__(self, root: Path, written: Written) -> None:
        self.root, self.written = root, written
        self.profiles = Profiles(root, None)
        self.profiles.make_room()
        self.snapshots = Snapshots(root, keys.load(root / ".backup.keys", make=True))
        self.snapshots.make_room()
        self.profile = {code: self._profile(code) for code in (DEMO, OTHERS)}
        self.taken = {code: [self.take(code), self.take(code)] for code in (DEMO, OTHERS)}

    def _profile(self, code: ClientCode) -> Profile:
        profile = self.profiles.create(code)
        shutil.copytree(self.written.profile, profile.path, symlinks=True, dirs_exist_ok=True)
        witness.write(profile.witness, self.written.witness)
        self.give(profile.path, NOBODY if os.geteuid() == 0 else os.geteuid())
        return profile

    @staticmethod
    def give(path: Path, uid: int) -> None:
        for one in (path, *path.rglob("*")):
            os.chown(one, uid, -1, follow_symlinks=False)

    def take(self, code: ClientCode, ring: Keyring | None = None) -> Snapshot:
        profile = self.profile[code]
        about = About(
            *(code, profile.generation, "request", 1.7e9, VERSION, self.written.origin),
            live=False,
            login=True,
        )
        return Snapshots(self.root, ring or self.snapshots.keyring, without_old_keys=True).take(
            GO, profile.path, about
        )


@pytest.fixture
def logins(tmp_path: Path, small: Written, monkeypatch: pytest.MonkeyPatch) -> Logins:
    for name in [name for name in os.environ if name.startswith("WAGUARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    scheme, host, port = small.origin.split("_")
    whose = '[browser]\nuser = "nobody"\n' if os.geteuid() == 0 else ""
    (tmp_path / "config.toml").write_text(
        f'[whatsapp]\nurl = "{scheme}://{host}:{port}/"\n[api]\nport = 1\n{whose}'
    )
    return Logins(tmp_path / "sessions", small)


def found(*arguments: str, code: int) -> dict[str, list[dict[str, Any]]]:
    """What is said of each client; and the table says it too."""
    done = call("check", *arguments, "--json")
    assert done.exit_code == code, done.output
    views = json.loads(done.stdout)
    table = call("check", *arguments)
    assert table.exit_code == code
    for view in views:
        (row,) = [line for line in table.stdout.splitlines() if line.startswith(f"{view['client']}\t")]
        assert view["ok"] is all(
            one["state"] in {"sound", "suspect", "in_use", "none"} for one in view["checked"]
        )
        assert all(one["why"] in row for one in view["checked"])
    return {view["client"]: view["checked"] for view in views}


def states(of: list[dict[str, Any]]) -> list[str]:
    return [one["state"] for one in of]


def everything(root: Path) -> dict[str, tuple[int, int, int]]:
    looked = ((path, path.lstat()) for path in (root, *root.rglob("*")))
    return {str(path): (status.st_mtime_ns, status.st_size, status.st_mode) for path, status in looked}


def test_what_is_sound_is_said_to_be_so_and_nothing_is_changed(logins: Logins) -> None:
    before = everything(logins.root)
    of = found("--all-logins", code=ExitCode.DONE)
    assert states(of["demo"]) == states(of["demo2"]) == ["sound"] * 3
    assert [one["id"] for one in of["demo"][1:]] == [one.id for one in reversed(logins.taken[DEMO])]
    assert [*found("demo2", code=ExitCode.DONE)] == ["demo2"]
    assert call("check", "--all-logins").stdout.splitlines() == [
        "CLIENT\tPROFILE\tSNAPSHOTS\tWHY",
        "demo\tsound\t2 sound\t-",
        "demo2\tsound\t2 sound\t-",
        "2 clients, 4 snapshots opened, no problems.",
    ]
    assert everything(logins.root) == before


def flipped(logins: Logins) -> None:
    damage.flip(logins.taken[DEMO][0].path, 0.7)


def cut(logins: Logins) -> None:
    damage.cut(logins.taken[DEMO][0].path, 0.6)


def no_header(logins: Logins) -> None:
    logins.taken[DEMO][0].path.write_bytes(b"no snapshot")


def wrong_key(logins: Logins) -> None:
    logins.taken[DEMO][0].path.unlink()
    logins.take(DEMO, Keyring([OTHER], Path("keys")))


def others(logins: Logins) -> None:
    of_others = logins.taken[OTHERS][0].path
    shutil.copy(of_others, logins.taken[DEMO][0].path)


WRONG_SNAPSHOTS: list[tuple[Callable[[Logins], None], str, str]] = [
    (flipped, "damaged", "It is damaged: it was changed"),
    (cut, "damaged", "It is damaged: "),
    (no_header, "no_snapshot", "It is no snapshot of waguard's."),
    (wrong_key, "wrong_key", "It was sealed with the key k2, which "),
    (others, "other_client", "It is of another client: demo2."),
]


@pytest.mark.parametrize(("do", "state", "why"), WRONG_SNAPSHOTS)
def test_a_snapshot_that_cannot_be_opened(
    logins: Logins, do: Callable[[Logins], None], state: str, why: str
) -> None:
    do(logins)
    of = found("--all-logins", code=ExitCode.FOUND)
    (wrong,) = [one for one in of["demo"] if one["state"] != "sound"]
    assert (wrong["what"], wrong["state"]) == ("snapshot", state)
    assert wrong["why"].startswith(why)
    assert states(of["demo2"]) == ["sound"] * 3


def torn(logins: Logins) -> None:
    damage.zero(damage.manifest(damage.indexed_db(logins.profile[DEMO].path)))


def gone(logins: Logins) -> None:
    shutil.rmtree(logins.profile[DEMO].path)


def of_somebody(logins: Logins) -> None:
    logins.give(logins.profile[DEMO].path, 12345)


def sealed_and_cut(logins: Logins) -> None:
    profile = logins.profile[DEMO]
    shutil.rmtree(profile.path)
    shutil.copy(logins.taken[DEMO][0].path, profile.sealed)
    damage.shorten(profile.sealed, 1)


WRONG_PROFILES: list[tuple[Callable[[Logins], None], str, str]] = [
    (torn, "damaged", "MANIFEST"),
    (gone, "lost", "The client's link names it, and it is not there."),
    (of_somebody, "profile_not_owned", "is not the browser's own: uid 12345"),
    (sealed_and_cut, "damaged", "It is damaged: "),
]


@pytest.mark.parametrize(("do", "state", "why"), WRONG_PROFILES)
def test_a_profile_that_is_not_as_it_should_be(
    logins: Logins, do: Callable[[Logins], None], state: str, why: str
) -> None:
    if do is of_somebody and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    do(logins)
    of = found("--all-logins", code=ExitCode.FOUND)
    assert states(of["demo"]) == [state, "sound", "sound"]
    assert why in of["demo"][0]["why"]
    assert states(of["demo2"]) == ["sound"] * 3


def test_one_that_is_sealed_is_opened(logins: Logins) -> None:
    profile = logins.profile[DEMO]
    shutil.rmtree(profile.path)
    shutil.copy(logins.taken[DEMO][0].path, profile.sealed)
    assert states(found("demo", code=ExitCode.DONE)["demo"]) == ["sound"] * 3


def test_without_its_keys_no_snapshot_is_called_sound(logins: Logins) -> None:
    (logins.root / ".backup.keys").unlink()
    of = found("--all-logins", code=ExitCode.FOUND)
    assert states(of["demo"]) == ["sound", "wrong_key", "wrong_key"]


def test_what_cannot_be_read_of_a_client_is_its_problem_alone(logins: Logins) -> None:
    (logins.root / DEMO / "session.json").write_text("{")
    (logins.root / "none-of-ours.").mkdir()
    of = found("--all-logins", code=ExitCode.FOUND)
    assert states(of["demo"]) == ["record_corrupt", "sound", "sound"]
    assert [*of] == ["demo", "demo2"]


# --- in use -------------------------------------------------------------------------------------------


@pytest.fixture
def in_use(logins: Logins) -> Iterator[None]:
    database = damage.indexed_db(logins.profile[DEMO].path)
    with locked(database / "LOCK"):
        torn(logins)  # as files may look that are being written
        yield


@pytest.mark.usefixtures("in_use")
def test_one_that_a_browser_uses_is_not_looked_at() -> None:
    of = found("--all-logins", code=ExitCode.DONE)
    assert states(of["demo"]) == ["in_use", "sound", "sound"]
    assert "A browser that is none of waguard's is using" in of["demo"][0]["why"]


@pytest.mark.usefixtures("in_use")
def test_of_one_in_use_the_daemon_says_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with Port() as port:
        port.handlers["GET /v1/sessions"] = always({"sessions": [replace(CONNECTED, client="demo")]})
        monkeypatch.setenv("WAGUARD_API__PORT", port.url.rpartition(":")[2])
        monkeypatch.setenv("WAGUARD_TOKEN", ADMIN)
        of = found("--all-logins", code=ExitCode.DONE)
    assert of["demo"][0]["why"] == "Its session is connected."


def test_one_that_changes_while_it_is_looked_at_is_in_use(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser is started and ends behind each look."""
    torn(logins)
    profile, examine = logins.profile[DEMO], examiners.examine

    def busy(subject: Any) -> Any:
        report = examine(subject)
        before = witness.read(profile.witness) or logins.written.witness
        witness.write(profile.witness, replace(before, lost=f"{before.lost}."))
        return report

    monkeypatch.setattr(examiners, "examine", busy)
    assert states(json.loads(call("check", "demo", "--json").stdout)[0]["checked"]) == [
        "in_use",
        "sound",
        "sound",
    ]


def test_a_snapshot_that_goes_meanwhile_is_none(logins: Logins) -> None:
    one = logins.taken[DEMO][0]
    assert checking._opened(logins.snapshots, DEMO, one, GO) is not None
    one.path.unlink()
    assert checking._opened(logins.snapshots, DEMO, one, GO) is None


def test_a_disk_that_hangs_stops_no_other(logins: Logins) -> None:
    with hanging_disks(logins.root / ".backups" / DEMO) as (disk,):
        disk.hang()
        done = call("check", "--all-logins", "--json", "--timeout", "2")
        of = {view["client"]: view["checked"] for view in json.loads(done.stdout)}
        disk.answer()
    assert done.exit_code == ExitCode.FOUND
    assert states(of["demo"]) == ["sound", "storage_hangs"]
    assert "has not ended for 2 s: its disk does not answer" in of["demo"][1]["why"]
    assert states(of["demo2"]) == ["sound"] * 3


# --- what is asked ------------------------------------------------------------------------------------


def test_it_has_to_be_said_of_whom(logins: Logins) -> None:
    for arguments in ((), ("demo", "--all-logins")):
        assert call("check", *arguments).exit_code == ExitCode.USAGE
    done = call("check", "nobody")
    assert done.exit_code == ExitCode.FAILED
    assert "[session_not_found]" in done.stderr


def test_a_disk_that_is_not_mounted_is_not_all_well(logins: Logins) -> None:
    shutil.rmtree(logins.root)
    done = call("check", "--all-logins")
    assert done.exit_code == ExitCode.FAILED
    assert f"There is no {logins.root}. [no_file]" in done.stderr
