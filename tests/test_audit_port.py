"""The audit of a daemon as it runs: what requests are recorded as, a disk that is full, a daemon that is killed; and `waguard audit`."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from audits import acts, change, fill, head, some, stored, wrong
from bare_browser import NOBODY
from commands import call
from conftest import POSING, Daemon, Journal
from control_port import ADMIN, API, Answer, Port, is_problem
from service import Service
from typer.testing import Result
from waiting import until

from waguard.audit.chain import FILE, HEAD
from waguard.cli.exits import ExitCode
from waguard.core.audit import GENESIS, Anchor, Kind, RecordedAct
from waguard.core.model import Alert, ClientCode, Status

DEMO = ClientCode("demo")
ROOT = Path(__file__).parent.parent
QUICK = {"poll_s": 0.02, "poll_loading_s": 0.02}


@asynccontextmanager
async def port(pose: Daemon, name: str = "connected", **sections: Any) -> AsyncIterator[Port]:
    async with (
        pose(name, api={**API, "costly_per_minute": 0}, page=QUICK, **sections) as (supervisor, url),
        aiohttp.ClientSession() as http,
    ):
        yield Port(url, supervisor, http)


async def done(asked: Port, path: str, body: Mapping[str, Any] | None = None, status: int = 200) -> Answer:
    data = json.dumps(body).encode() if body is not None else None
    answer = await asked.ask("POST", path, body=data)
    assert answer.status == status, answer.body
    return answer


async def told(root: Path) -> Sequence[RecordedAct]:
    """What was asked for at the control port."""
    return [one for one in await asyncio.to_thread(acts, root) if one.record.note.kind is Kind.ASKED]


async def test_requests_are_recorded_with_who_what_and_what_came_of_it(
    pose: Daemon, sessions_dir: Path, journal: Journal
) -> None:
    async with port(pose) as asked:
        first = await done(asked, "/v1/sessions/demo/connect")
        await done(asked, "/v1/sessions/demo/connect", {"fresh": True})
        await done(asked, "/v1/sessions/demo/restart")
        await done(asked, "/v1/reap", {"dry_run": True})
        await done(asked, "/v1/reap")
        await done(asked, "/v1/sessions/demo/disconnect")
        cleaned = await done(asked, "/v1/sessions/demo/cleanup")
        options = {"name": "crm", "scopes": ["read"], "clients": ["demo"]}
        made = (await done(asked, "/v1/tokens", options)).json
        await done(asked, "/v1/tokens/crm/rotate", {"overlap_s": 0})
        await done(asked, "/v1/tokens/crm/revoke")
        await done(asked, "/v1/sessions/demo/snapshots/nothing/restore", status=404)
        await asked.ask("POST", "/api/whatsapp/force-cleanup", "demo-demo-demo-demo")
        found = await told(sessions_dir)
    names = [one.record.note.act for one in found]
    assert names == [
        *("connect", "restart", "reap", "disconnect", "cleanup"),
        *("token-create", "token-rotate", "token-revoke", "restore", "cleanup"),
    ]
    ends = [one.end.note for one in found if one.end is not None]
    assert [one.outcome for one in ends] == [*["ok"] * 8, "snapshot_not_found", "ok"]
    assert {one.record.note.actor for one in found[:-1]} == {"token:admin"}
    assert found[-1].record.note.actor == "token:demo"
    assert {one.record.note.origin for one in found} == {"127.0.0.1"}
    by_name = dict(zip(names, found, strict=True))
    assert by_name["connect"].record.note.told["fresh"] is True
    assert first.headers["X-Request-Id"] not in {one.record.note.request for one in found}
    assert found[4].record.note.request == cleaned.headers["X-Request-Id"]
    steps = [one["step"] for one in ends[4].told["events"] if one["event"] == "cleanup.step"]
    assert steps == ["memory", "browser", "tree", "profile", "values", "files", "lock"]
    ids = {one["token"] for end in ends[5:8] for one in end.told["events"] if "token" in one}
    assert ids == {made["about"]["id"]}
    kept = b"".join(path.read_bytes() for path in sessions_dir.glob(".audit*"))
    for secret in (ADMIN, made["token"].rpartition("_")[2]):
        assert secret.encode() not in kept
    assert wrong(sessions_dir) == []


async def test_what_leaves_or_enters_the_house_is_recorded(pose: Daemon, sessions_dir: Path) -> None:
    async with port(pose, "ok") as asked:
        await done(asked, "/v1/sessions/demo/connect")
        taken = (await done(asked, "/v1/sessions/demo/snapshots")).json["id"]
        exported = await asked.ask("GET", f"/v1/sessions/demo/snapshots/{taken}")
        assert exported.status == 200
        for query in ("", "?dry_run=true"):
            brought = await asked.ask("POST", f"/v1/sessions/demo2/import{query}", body=b"no archive" * 100)
            assert brought.status == 422
        await asked.ask("POST", "/v1/sessions/demo/pairing-code", body=b'{"phone": "34600123456"}')
        found = await told(sessions_dir)
    snapshot, export, bring, pair = found
    assert (snapshot.record.note.act, snapshot.record.note.client) == ("snapshot", "demo")
    assert snapshot.end is not None
    assert [one["snapshot"] for one in snapshot.end.note.told["events"]] == [taken]
    assert (export.record.note.act, export.record.note.told) == ("export", {"id": taken})
    assert export.end is not None
    assert export.end.note.outcome == "ok"
    assert taken in export.end.note.told["file"]
    assert (bring.record.note.act, bring.record.note.client) == ("import", "demo2")
    assert bring.end is not None
    assert bring.end.note.outcome == "snapshot_refused"
    assert (pair.record.note.act, pair.record.note.told) == ("pairing-code", {"phone": "..."})


async def test_a_step_that_fails_is_the_outcome_of_a_cleanup(
    pose: Daemon, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with port(pose) as asked:
        await done(asked, "/v1/sessions/demo/connect")
        place = sessions_dir / ".retired"
        place.rmdir()
        place.write_text("in the way")
        answer = await done(asked, "/v1/sessions/demo/cleanup")
        assert not answer.json["ok"]
        place.unlink()
        place.mkdir()
        (act,) = await told(sessions_dir)
    assert act.end is not None
    assert act.end.note.outcome == "cleanup_failed"


@pytest.fixture
def disk(sessions_dir: Path) -> Iterator[Path]:
    sessions_dir.mkdir()
    options = ["-t", "tmpfs", "-o", "size=16m,mode=711", "tmpfs", str(sessions_dir)]
    mounted = subprocess.run(["mount", *options], check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a tmpfs here: {mounted.stderr.strip()}")
    yield sessions_dir
    subprocess.run(["umount", str(sessions_dir)], check=True)


async def test_a_full_disk_refuses_a_cleanup_with_the_reason(
    pose: Daemon, disk: Path, journal: Journal
) -> None:
    async with port(pose) as asked:
        before = (await done(asked, "/v1/sessions/demo/connect")).json
        made = (await done(asked, "/v1/tokens", {"name": "old", "scopes": ["read"], "clients": "*"})).json
        fill(disk)
        for path in ("cleanup", "connect?fresh=true", "snapshots/newest/restore"):
            answer = await asked.ask("POST", f"/v1/sessions/demo/{path}")
            problem = is_problem(answer, 503, "audit_unavailable")
            assert re.search(r"nothing was done.*(full|No space left)", problem["detail"])
        is_problem(await asked.ask("POST", "/v1/reap"), 503, "audit_unavailable")
        is_problem(await asked.ask("POST", "/v1/tokens/old/rotate"), 503, "audit_unavailable")
        old = await asked.ask("POST", "/api/whatsapp/force-cleanup", "demo-demo-demo-demo")
        assert (old.status, old.json["error"]) == (503, "audit_unavailable")
        assert "constancia" in old.json["message"]
        view = asked.supervisor.view(DEMO)
        assert (view.status, view.attempt) == (Status.CONNECTED, before["attempt"])
        assert not journal.named("cleanup.step")
        assert Alert.AUDIT_UNAVAILABLE in {one.alert for one in asked.supervisor.alerts()}
        # A stolen token is taken back all the same.
        await asked.ask("POST", "/v1/tokens/old/revoke")
        assert (await asked.ask("GET", "/v1/sessions", made["token"])).status == 401
        (disk / "filler").unlink()
        await until(lambda: journal.named("audit.recovered"))
        await done(asked, "/v1/sessions/demo/cleanup")
        assert Alert.AUDIT_UNAVAILABLE not in {one.alert for one in asked.supervisor.alerts()}
        found = await told(disk)
    outcomes = [(one.record.note.act, one.end and one.end.note.outcome) for one in found]
    assert outcomes.count(("cleanup", "audit_unavailable")) == 2
    assert ("token-rotate", "audit_unavailable") in outcomes
    assert outcomes[-1] == ("cleanup", "ok")
    assert wrong(disk) == []


async def test_who_attaches_to_a_page_is_recorded(pose: Daemon, sessions_dir: Path, journal: Journal) -> None:
    async with port(pose) as asked:
        await done(asked, "/v1/sessions/demo/connect")
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with asked.http.ws_connect(f"{asked.url}/v1/sessions/demo/cdp", headers=headers):
            pass
        await until(lambda: journal.named("relay.detached"))
    found = [one.record.note for one in acts(sessions_dir)]
    assert [(one.act, one.actor, one.client) for one in found] == [
        ("relay.attached", "token:admin", "demo"),
        ("relay.detached", "token:admin", "demo"),
    ]


# --- a daemon that is killed, and what an admin sees ------------------------------------------------------------


def waguard(place: Path, *arguments: str) -> Result:
    return call("--config", str(place / "config.toml"), "audit", *arguments, env={"COLUMNS": "80"})


async def test_a_daemon_that_dies_in_an_act_leaves_it_without_an_end(
    tmp_path: Path, sessions_dir: Path
) -> None:
    settings = {"browser": {"path": str(POSING), "extra_flags": ["--posing=ignores-close"]}}
    async with Service(tmp_path, settings) as service:
        await service.start()
        await service.ask("POST", "/v1/sessions/demo/connect")
        await service.ask("POST", "/v1/reap")
        asking = asyncio.create_task(service.ask("POST", "/v1/sessions/demo/cleanup"))
        await service.until(
            lambda: any(one["number"] == 4 for one in service.events("audit.recorded")), "asked"
        )
        assert "profile" not in {one["step"] for one in service.events("cleanup.step")}
        await service.end(signal.SIGKILL)
        with pytest.raises(aiohttp.ClientError):
            await asking
        shown = await asyncio.to_thread(waguard, tmp_path, "show", "demo", "--json")
        (act,) = json.loads(shown.stdout)
        assert (act["record"]["number"], act["record"]["note"]["act"], act["end"]) == (4, "cleanup", None)
        said = (await asyncio.to_thread(waguard, tmp_path, "show")).stdout
        assert re.search(r"\tcleanup\tdemo\tno end\ttoken:admin\t4\t127.0.0.1\t", said)
        assert re.search(r"\treap\t-\tok\t", said)
        whole = await asyncio.to_thread(waguard, tmp_path, "verify")
        assert whole.exit_code == 0, whole.output
        assert "4 records, 1 to 4: whole." in whole.stdout
        assert "Without an end, since they are under way or the daemon died in them: 4." in whole.stdout
        await service.start()
        await service.ask("POST", "/v1/reap")
        assert not [one for one in service.events("alert.raised") if one["alert"].startswith("audit")]
        again = json.loads((await asyncio.to_thread(waguard, tmp_path, "verify", "--json")).stdout)
        assert again["whole"]
        assert 4 in again["without_end"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal) -> Path:
    """Where an earlier daemon has left seven records, and a journal that has nothing of them."""
    root = tmp_path / "sessions"
    root.mkdir()
    (tmp_path / "config.toml").write_text(f'[sessions]\ndir = "{root}"\n')
    journalctl(tmp_path, monkeypatch, [])

    class Deaf:
        def set(self, _alert: Alert, _text: str) -> None:
            pass

    asyncio.run(some(root, journal, Deaf()))  # type: ignore[arg-type]
    return tmp_path


def journalctl(place: Path, monkeypatch: pytest.MonkeyPatch, entries: Sequence[Any], more: str = "") -> None:
    """A program of that name, which says that and notes what it was asked."""
    program = place / "bin" / "journalctl"
    program.parent.mkdir(exist_ok=True)
    (place / "entries").write_text("".join(f"{json.dumps(one)}\n" for one in entries))
    program.write_text(f'#!/bin/sh\necho "$@" > {place}/asked\ncat {place}/entries\n{more}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def entry(root: Path, anchor: Anchor) -> Mapping[str, str]:
    fields = {"path": str(root / FILE), "number": anchor.number, "hash": anchor.hash}
    return {"WAGUARD_FIELDS": json.dumps(fields), "_UID": "0"}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE records SET record = replace(record, 'crm', 'x')  WHERE number = 5",
            "The record 5 is changed",
        ),
        ("DELETE FROM records WHERE number IN (3, 4)", "The records 3 to 4 are removed"),
        ("DELETE FROM records WHERE number = 7", "The record 7 is cut off"),
    ],
)
def test_verify_names_what_was_changed_removed_or_cut_off(place: Path, statement: str, said: str) -> None:
    assert waguard(place, "verify").exit_code == 0
    change(place / "sessions", statement)
    result = waguard(place, "verify")
    assert result.exit_code == ExitCode.FOUND
    assert said in result.stdout
    assert "broken" in result.stdout


def test_what_is_known_to_be_gone_need_not_be_there(place: Path) -> None:
    change(place / "sessions", "DELETE FROM records WHERE number < 4")
    assert "The records 1 to 3 are removed" in waguard(place, "verify").stdout
    assert waguard(place, "verify", "--from", "4").exit_code == 0


def test_an_anchor_of_the_journal_finds_what_the_one_beside_the_file_cannot(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place / "sessions"
    known = [row.anchor for row in stored(root)]
    journalctl(
        place, monkeypatch, [*(entry(root, one) for one in known), {"odd": 1}, [], entry(place, known[0])]
    )
    whole = waguard(place, "verify")
    assert whole.exit_code == 0, whole.output
    assert "The journal has 7 anchors of it." in whole.stdout
    asked = (place / "asked").read_text().split()
    assert f"_UID={os.geteuid()}" in asked
    assert "WAGUARD_EVENT=audit.recorded" in asked
    # Whoever has the file cuts its end off, and makes the anchor beside it anew.
    change(root, "DELETE FROM records WHERE number > 5")
    (root / HEAD).write_text(f"{stored(root)[0].anchor}\n")
    assert waguard(place, "verify", "--no-journal").exit_code == 0
    result = waguard(place, "verify")
    assert result.exit_code == ExitCode.FOUND
    assert "The records 6 to 7 are cut off" in result.stdout
    by_hand = waguard(place, "verify", "--no-journal", "--head", str(known[0]))
    assert by_hand.exit_code == ExitCode.FOUND
    assert "The records 6 to 7 are cut off" in by_hand.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [("echo no entry >&2; exit 1", "The journal cannot be read: no entry"), ("exit 0", "has 0 anchors")],
)
def test_a_journal_that_says_nothing_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, more: str, said: str
) -> None:
    journalctl(place, monkeypatch, [], more)
    result = waguard(place, "verify")
    assert result.exit_code == 0
    assert said in result.stdout


def test_without_an_anchor_beside_it_it_is_not_called_whole(place: Path) -> None:
    anchor = (place / "sessions" / HEAD).read_text().strip()
    (place / "sessions" / HEAD).unlink()
    result = waguard(place, "verify")
    assert result.exit_code == ExitCode.FOUND
    assert "no anchor of them is known" in result.stdout
    assert "is not there, or cannot be read" in result.stdout
    # Such as a file that was kept elsewhere, with an anchor that was kept, too.
    assert waguard(place, "verify", "--head", anchor).exit_code == 0
    assert waguard(place, "verify", "--head", "17").exit_code == 2


def test_a_file_that_is_gone_or_damaged_is_told(place: Path) -> None:
    path = place / "sessions" / FILE
    path.write_bytes(b"no database" * 1000)
    result = waguard(place, "verify")
    assert result.exit_code == 1
    assert "audit_unread" in result.output
    path.unlink()
    gone = waguard(place, "verify")
    assert gone.exit_code == ExitCode.FOUND
    assert "The records 1 to 7 are cut off" in gone.stdout
    (place / "sessions" / HEAD).unlink()
    assert waguard(place, "verify").exit_code == 0
    assert "Nothing is recorded" in waguard(place, "show").stdout
    path.symlink_to("/etc/passwd")
    assert "it is a link" in waguard(place, "show").output


def test_looking_changes_nothing(place: Path) -> None:
    """What SQLite needs to look, it makes: it belongs to whose file that is, also where root looks."""
    root = place / "sessions"
    if os.geteuid() == 0:
        for path in root.iterdir():
            os.chown(path, NOBODY, NOBODY)
    before = {path.name: path.read_bytes() for path in root.iterdir()}
    for arguments in (["verify"], ["show"], ["export"]):
        assert waguard(place, *arguments).exit_code == 0
    after = {path.name: path.read_bytes() for path in root.iterdir()}
    assert {name: data for name, data in after.items() if not name.endswith(("-wal", "-shm"))} == before
    assert after.get(f"{FILE}-wal", b"") == b""
    assert len({path.stat().st_uid for path in root.iterdir()}) == 1


def test_show_has_as_many_as_are_asked_for_and_only_of_that_client(place: Path) -> None:
    assert len(json.loads(waguard(place, "show", "--json").stdout)) == 4
    assert [
        one["record"]["number"] for one in json.loads(waguard(place, "show", "--last", "2", "--json").stdout)
    ] == [6, 4]
    assert len(json.loads(waguard(place, "show", "demo", "--json").stdout)) == 3
    assert "Nothing is recorded of demo2" in waguard(place, "show", "demo2").stdout


def test_an_export_can_be_verified_by_others(place: Path) -> None:
    file = place / "audit.jsonl"
    result = waguard(place, "export", "-o", str(file))
    assert "has 7 records" in result.output
    assert file.read_text() == waguard(place, "export").stdout
    previous = GENESIS
    for number, line in enumerate(file.read_text().splitlines(), 1):
        told = json.loads(line)
        record = json.loads(told["record"])
        assert hashlib.sha256(told["record"].encode()).hexdigest() == told["hash"]
        assert (record["number"], record["previous"]) == (number, previous)
        previous = told["hash"]
    assert str(head(place / "sessions")) == f"7:{previous}"
    assert waguard(place, "export", "-o", str(file)).exit_code == 1


def test_the_program_of_the_documentation_verifies_an_export(place: Path) -> None:
    page = (ROOT / "docs/how-to/audit.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    file = place / "audit.jsonl"
    assert waguard(place, "export", "-o", str(file)).exit_code == 0

    def verified() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    whole = verified()
    assert whole.stdout == f"the newest: {head(place / 'sessions')}\n", whole.stderr
    file.write_text(file.read_text().replace("crm", "cra", 1))
    assert verified().stderr == "record 2 or the one before is not what was written\n"


_PRIVATE = """
import asyncio, os, socket, subprocess, sys, time
from pathlib import Path

run, place = Path("/run"), Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(run)], check=True)
settings = run / "systemd/journald.conf.d"
settings.mkdir(parents=True)
(settings / "test.conf").write_text("[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\n")
(run / "systemd/journal").mkdir()
(run / "log/journal" / Path("/etc/machine-id").read_text().strip()).mkdir(parents=True)
journald = subprocess.Popen(["/lib/systemd/systemd-journald"])

def until(true, what):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)

def verify(*more):
    command = [sys.executable, "-m", "waguard", "--config", str(place / "config.toml"), "audit", "verify", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)

async def record(log):
    from waguard.audit.audit import Audit
    from waguard.observe.bus import Bus
    bus = Bus()
    bus.subscribe(log)
    audit = Audit(place / "sessions", bus, lambda alert, text: None)
    await audit.start()
    bus.subscribe(audit.heard)
    for number in range(5):
        bus.publish("profile.deleted", profile=f"p{number}", why="the disk is full")
    await audit.close()

try:
    until((run / "systemd/journal/socket").is_socket, "it has a socket")
    from waguard.audit.chain import FILE, HEAD
    from waguard.config.sections import Log
    from waguard.observe import logs
    with logs.opened(Log(format="journal")) as log:
        asyncio.run(record(log))
    until(lambda: "has 6 anchors" in verify().stdout, "all are there")
    assert verify().returncode == 0
    import sqlite3
    with sqlite3.connect(place / "sessions" / FILE) as db:
        db.execute("DELETE FROM records WHERE number = 6")
        (last,) = db.execute("SELECT number || ':' || hash FROM records WHERE number = 5").fetchone()
    (place / "sessions" / HEAD).write_text(last)
    assert verify("--no-journal").returncode == 0
    print(verify().stdout)
except BaseException as error:
    print(repr(error))
finally:
    journald.kill()
    journald.wait()
"""
"""In a mount namespace of its own, as tests/test_journal.py has it."""


def test_a_real_journal_tells_that_the_end_was_cut_off(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not Path("/lib/systemd/systemd-journald").exists() or not shutil.which("unshare"):
        pytest.skip("this needs root, systemd-journald and unshare")
    root = tmp_path / "sessions"
    root.mkdir()
    (tmp_path / "config.toml").write_text(f'[sessions]\ndir = "{root}"\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAGUARD_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-c",
        _PRIVATE,
        str(tmp_path),
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=90, env=environment, cwd=tmp_path
    )
    if "mount" in done.stderr and not done.stdout:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert "The record 6 is cut off: an anchor has 6, and the last is 5." in done.stdout, done
