"""What an undo takes back, and what it is refused for: the rule, profiles that pose, and each step at which a daemon may die."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import damage
import pytest
from bare_browser import BINARY
from clients import DEMO, DEMO2, log_in
from commands import ADMIN, always, call, store_tokens
from commands import Port as CommandPort
from conftest import Daemon, Journal
from control_port import API, TOKEN, Port, is_problem
from crashes import STEPS, crashes_that_show
from house import GO, House
from hypothesis import given
from hypothesis import strategies as st
from trees import snapshot
from waiting import until
from written import Written

from waguard.core.model import ClientCode, Source, Status, Wait
from waguard.core.shown import UndoTried, UndoView
from waguard.core.undo import Act, Deed, happened, last
from waguard.errors import LoginInUse, StorageFailed, UndoRefused, WaguardError
from waguard.profile.aside import Aside
from waguard.session.custody import Custody
from waguard.session.ladder import Ladder
from waguard.session.login import ClientLogin
from waguard.simulator.server import Cadence, Simulator
from waguard.supervisor.supervisor import Supervisor
from waguard.upkeep.tidying import Tidying

real = pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
UNDO = "/v1/sessions/demo/undo"

# --- the rule ----------------------------------------------------------------------------------------------------

CLEANUP = Act(Deed.CLEANUP, 1.0, "G1", "V1")
FRESH = Act(Deed.FRESH, 2.0, "G2")
BACK = Act(Deed.UNDO, 3.0, "G3", "V3", "G1")
ONTO_NOTHING = replace(BACK, generation="")


def done(act: Act) -> Act:
    return replace(act, done=True)


@pytest.mark.parametrize(
    ("acts", "current", "expected"),
    [
        ([], "G1", None),
        ([CLEANUP], "G1", None),  # it died before anything was done
        ([CLEANUP], "", CLEANUP),
        ([done(CLEANUP)], "G2", done(CLEANUP)),
        ([done(CLEANUP), FRESH], "G2", done(CLEANUP)),
        ([done(CLEANUP), FRESH], "G4", FRESH),
        ([done(CLEANUP), BACK], "G3", done(CLEANUP)),
        ([done(CLEANUP), BACK], "G1", BACK),
        ([done(CLEANUP), ONTO_NOTHING], "", done(CLEANUP)),
        ([done(CLEANUP), ONTO_NOTHING], "G1", None),
    ],
)
def test_the_last_one_that_has_happened(acts: list[Act], current: str, expected: Act | None) -> None:
    assert last(acts, current) == expected


@given(
    st.builds(Act, st.sampled_from(Deed), st.floats(0, 9), st.sampled_from(["", "G1"]), done=st.just(True)),
    st.floats(0, 9),
)
def test_no_clock_is_asked(act: Act, at: float) -> None:
    assert happened(act, "G1")
    assert (last([act], "G1") is None) is (act.generation == "")
    later = replace(act, at=at)
    assert (last([later], "G1") is None) is (last([act], "G1") is None)


# --- profiles of browsers that pose ------------------------------------------------------------------------------


@pytest.fixture
def port(pose: Daemon) -> Any:
    @asynccontextmanager
    async def opening(posing: str = "connected", **sections: dict[str, Any]) -> AsyncIterator[Port]:
        async with (
            pose(posing, api=API, **sections) as (supervisor, url),
            aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
        ):
            yield Port(url, supervisor, http)

    return opening


def generation(supervisor: Supervisor) -> str | None:
    return supervisor.view(DEMO).generation


def marked(sessions_dir: Path) -> Path:
    return (sessions_dir / "demo" / "profile").resolve() / "mark"


def retired(sessions_dir: Path) -> list[str]:
    return sorted(path.name.split(".", 2)[2] for path in (sessions_dir / ".retired").iterdir())


async def swept(sessions_dir: Path) -> None:
    """What was put aside has the name that it keeps."""
    await until(lambda: all(one.endswith((".empty", ".saved")) for one in retired(sessions_dir)), "looked at")


def refused(caught: pytest.ExceptionInfo[UndoRefused]) -> str:
    return str(caught.value.details["reason"])


async def put(port: Port, key: str, said: bytes) -> None:
    answer = await port.ask("PUT", f"/v1/sessions/demo/values/{key}", TOKEN, body=said)
    assert answer.status == 200


async def kept(port: Port) -> dict[str, bytes]:
    found = (await port.ask("GET", "/v1/sessions/demo/values", TOKEN)).json["values"]
    return {
        one["key"]: (await port.ask("GET", f"/v1/sessions/demo/values/{one['key']}", TOKEN)).body
        for one in found
    }


async def test_a_cleanup_is_taken_back_with_its_values_and_an_undo_likewise(
    port: Any, sessions_dir: Path, journal: Journal
) -> None:
    async with port() as asked:
        supervisor = asked.supervisor
        await supervisor.connect(DEMO)
        first = generation(supervisor)
        marked(sessions_dir).write_text("first")
        await put(asked, "a", b"before")
        await supervisor.cleanup(DEMO)
        await supervisor.connect(DEMO)
        second = generation(supervisor)
        assert second != first
        await put(asked, "b", b"after")
        before = snapshot(sessions_dir)
        tried = (await asked.ask("POST", f"{UNDO}?dry_run=true", TOKEN)).json
        told = tried["undo"]
        assert tried["dry_run"]
        assert (told["act"], told["generation"], told["values"], told["replaces"]) == (
            "cleanup",
            first,
            1,
            second,
        )
        assert snapshot(sessions_dir) == before
        view = (await asked.ask("POST", UNDO, TOKEN)).json
        assert (view["generation"], view["profile"], view["status"]) == (first, "returned", "connected")
        assert marked(sessions_dir).read_text() == "first"
        assert await kept(asked) == {"a": b"before"}
        assert [one.partition(".")[0] for one in retired(sessions_dir)] == ["undo", "values"]
        assert (await asked.ask("POST", f"{UNDO}?dry_run=true", TOKEN)).json["undo"]["act"] == "undo"
        view = (await asked.ask("POST", UNDO, TOKEN)).json
        assert (view["generation"], view["profile"]) == (second, "returned")
        assert await kept(asked) == {"b": b"after"}
        await supervisor.undo(DEMO)
        assert generation(supervisor) == first
        assert await kept(asked) == {"a": b"before"}
    returned = [one.fields for one in journal.named("profile.returned")]
    assert [one["profile"] for one in returned] == [first, second, first]
    assert returned[0]["actor"] == "token:demo"


async def test_after_a_restart_of_the_daemon_too_and_where_nothing_is_there_now(
    port: Any, sessions_dir: Path
) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO)
        first = generation(asked.supervisor)
        await put(asked, "a", b"before")
        await asked.supervisor.cleanup(DEMO)
        steps = (await asked.supervisor.cleanup(DEMO)).steps  # that has nothing to do takes nothing from it
        assert next(one.outcome for one in steps if one.step == "profile") == "nothing"
    async with port() as asked:
        view = await asked.supervisor.check_undo(DEMO)
        assert (view.act, view.generation, view.replaces) == (Deed.CLEANUP, first, None)
        assert (await asked.supervisor.undo(DEMO)).generation == first
        assert await kept(asked) == {"a": b"before"}
        with pytest.raises(UndoRefused) as caught:
            await asked.supervisor.undo(DEMO)
        assert refused(caught) == "nothing", "there was nothing to be put aside"
        assert retired(sessions_dir) == []


async def test_the_last_act_is_known_whatever_the_clock_and_the_dates_of_files_say(
    port: Any, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with port() as asked:
        supervisor = asked.supervisor
        await supervisor.connect(DEMO)
        await supervisor.cleanup(DEMO)
        await supervisor.connect(DEMO)
        second = generation(supervisor)
        await supervisor.connect(DEMO, fresh=True)
        await swept(sessions_dir)
        for path in (sessions_dir / ".retired").iterdir():
            if ".cleanup" in path.name:
                os.utime(path)  # as if it had been put aside last
            else:
                os.utime(path, (1, 1))
        view = await supervisor.check_undo(DEMO)
        assert (view.act, view.generation) == (Deed.FRESH, second)
        assert (await supervisor.undo(DEMO)).generation == second


async def test_what_cannot_be_taken_back_is_refused_and_nothing_changes(
    port: Any, sessions_dir: Path
) -> None:
    async with port() as asked:
        is_problem(await asked.ask("POST", UNDO, TOKEN), 404, "session_not_found")
        assert not (sessions_dir / "demo").exists()
        await asked.supervisor.connect(DEMO)
        first = await asked.supervisor.connect(DEMO)
        problem = is_problem(await asked.ask("POST", UNDO, TOKEN), 409, "undo_refused")
        assert problem["reason"] == "nothing"
        assert problem["hint"].endswith("GET /v1/sessions/demo/snapshots")
        await asked.supervisor.connect(DEMO, fresh=True)
        await swept(sessions_dir)
        (place,) = (sessions_dir / ".retired").iterdir()
        away = sessions_dir / "away"
        place.rename(away)
        now = await asked.supervisor.connect(DEMO)
        for query in ("", "?dry_run=true"):
            problem = is_problem(await asked.ask("POST", UNDO + query, TOKEN), 409, "undo_refused")
            assert (problem["reason"], str(first.generation) in problem["detail"]) == ("gone", True)
        away.rename(place)
        subprocess.run(["cp", "-a", place, away], check=True)
        (place / "Default").mkdir(exist_ok=True)
        (place / "Default" / "IndexedDB").symlink_to("/etc")
        (place / "Default" / "Local Storage").symlink_to("/etc")
        for path in (place / "Default", *(place / "Default").iterdir()):
            os.chown(path, place.stat().st_uid, place.stat().st_gid, follow_symlinks=False)
        problem = is_problem(await asked.ask("POST", UNDO, TOKEN), 409, "undo_refused")
        assert problem["reason"] == "damaged"
        after = await asked.supervisor.connect(DEMO)
        assert (after.generation, after.attempt) == (now.generation, now.attempt)
        shutil.rmtree(place)
        away.rename(place)
        assert (await asked.supervisor.undo(DEMO)).generation == first.generation


async def test_an_act_that_never_happened_is_not_the_last_one(
    port: Any, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cleanup whose profile could not be put aside; what was done before it can be taken back still."""
    async with port(restart={"budget": 0}) as asked:
        supervisor = asked.supervisor
        await supervisor.connect(DEMO)
        first = generation(supervisor)
        await supervisor.connect(DEMO, fresh=True)
        with monkeypatch.context() as patched:

            def put(*_: object, **__: object) -> None:
                raise StorageFailed("Cannot retire it: Input/output error.")

            patched.setattr(Aside, "put", put)
            assert not (await supervisor.cleanup(DEMO)).ok
        view = await supervisor.check_undo(DEMO)
        assert (view.act, view.generation) == (Deed.FRESH, first)
        await supervisor.connect(DEMO)
        assert [one.act.what for one in supervisor._sessions[DEMO]._instance.record.acts] == [Deed.FRESH]
        assert (await supervisor.undo(DEMO)).generation == first


async def test_what_is_left_of_an_undo_is_done_by_the_next_start(
    port: Any, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile is back, and the daemon came to no more."""
    async with port(restart={"budget": 0}) as asked:
        supervisor = asked.supervisor
        await supervisor.connect(DEMO)
        first = generation(supervisor)
        await put(asked, "a", b"before")
        await supervisor.cleanup(DEMO)
        await supervisor.connect(DEMO)
        await put(asked, "b", b"after")
        with monkeypatch.context() as patched:

            async def tell(*_: object, **__: object) -> None:
                raise StorageFailed("It has died.")

            patched.setattr(ClientLogin, "tell", tell)
            with pytest.raises(WaguardError, match="It has died"):
                await supervisor.undo(DEMO)
        assert await kept(asked) == {"b": b"after"}
    async with port() as asked:
        assert (await asked.supervisor.check_undo(DEMO)).act is Deed.UNDO
        view = await asked.supervisor.connect(DEMO)
        assert (view.generation, view.profile) == (first, "kept")
        assert await kept(asked) == {"a": b"before"}
        (acted,) = asked.supervisor._sessions[DEMO]._instance.record.acts
        assert (acted.act.what, acted.act.done) == (Deed.UNDO, True)


async def test_values_that_cannot_come_back_keep_no_session_down(
    port: Any, sessions_dir: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO)
        first = generation(asked.supervisor)
        await put(asked, "a", b"before")
        await asked.supervisor.cleanup(DEMO)
        with monkeypatch.context() as patched:

            def take(*_: object) -> None:
                raise StorageFailed("Cannot bring them back: Input/output error.")

            patched.setattr(Aside, "take_values", take)
            assert (await asked.supervisor.undo(DEMO)).generation == first
        assert await kept(asked) == {}
        (told,) = journal.named("values.not_returned")
        assert (told.client, told.fields["code"]) == ("demo", "storage_failed")
        assert [one.rpartition(".")[2] for one in retired(sessions_dir)] == ["values"]
        await put(asked, "b", b"after")


async def test_two_who_undo_at_a_time_take_one_act_back(port: Any) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO)
        first = generation(asked.supervisor)
        await asked.supervisor.connect(DEMO, fresh=True)
        answers = await asyncio.gather(*(asked.ask("POST", UNDO, TOKEN) for _ in range(3)))
        assert {answer.status for answer in answers} == {200}, [one.body for one in answers]
        assert {answer.json["generation"] for answer in answers} == {first}


async def test_beside_a_sweep_that_gives_it_another_name_it_comes_back_whole_all_the_same(
    port: Any, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each look for it, and in the middle of each look at it."""
    renames: list[str] = []

    def rename() -> None:
        for path in (sessions_dir / ".retired").glob("demo.*.fresh"):
            path.rename(f"{path}.saved")
            renames.append(path.name)

    real_look, real_all, real_take = Custody.look, Aside.all, Aside.take

    def look(custody: Custody, *given: Any, **more: Any) -> Any:
        if given[0].parent.name == ".retired":
            rename()
        return real_look(custody, *given, **more)

    def every(aside: Aside) -> Any:
        found = real_all(aside)
        rename()
        return found

    def take(aside: Aside, *given: Any) -> None:
        rename()
        real_take(aside, *given)

    async def nothing(*_: object, **__: object) -> None:
        pass

    monkeypatch.setattr(Tidying, "_sweep", nothing)
    async with port() as asked:
        await asked.supervisor.connect(DEMO)
        for changed, name, how in ((Custody, "look", look), (Aside, "all", every), (Aside, "take", take)):
            first = generation(asked.supervisor)
            await asked.supervisor.connect(DEMO, fresh=True)
            for path in (sessions_dir / ".retired").glob("*.saved"):
                shutil.rmtree(path)
            with monkeypatch.context() as patched:
                patched.setattr(changed, name, how)
                assert (await asked.supervisor.undo(DEMO)).generation == first, name
        assert len(renames) == 3


# --- a login that Chromium wrote ---------------------------------------------------------------------------------


@real
@pytest.mark.browser
async def test_a_login_comes_back_without_a_scan(start: Daemon, journal: Journal, sessions_dir: Path) -> None:
    """A cleanup, a restore and an undo of that, on real Chromium."""
    async with (
        Simulator(cadence=Cadence(sync_s=0.05)) as simulator,
        start(whatsapp={"url": simulator.url}, page={"poll_s": 0.05, "poll_loading_s": 0.02}) as (
            supervisor,
            _,
        ),
    ):
        (view,) = await log_in(supervisor, simulator, DEMO)
        await until(lambda: journal.named("snapshot.taken"), "settled", 60)
        taken = journal.named("snapshot.taken")[0].fields["snapshot"]
        await supervisor.cleanup(DEMO)
        assert (await supervisor.connect(DEMO)).qr is not None
        tried = await supervisor.check_undo(DEMO)
        assert (tried.act, tried.login, tried.generation) == (Deed.CLEANUP, True, view.generation)
        back = await supervisor.undo(DEMO, wait=Wait.CONNECTED)
        assert (back.generation, back.login.value, back.profile) == (view.generation, "on_disk", "returned")
        restored = await supervisor.restore(DEMO, taken, wait=Wait.CONNECTED)
        assert restored.profile == "restored"
        assert (await supervisor.check_undo(DEMO)).act is Deed.RESTORE
        back = await supervisor.undo(DEMO, wait=Wait.CONNECTED)
        assert (back.generation, back.profile) == (view.generation, "returned")
        assert len(simulator.devices) == 1, "no second scan"
        # Two browsers with one login would drive each other out.
        await supervisor.cleanup(DEMO)
        await swept(sessions_dir)
        (place,) = (sessions_dir / ".retired").glob(f"demo.{view.generation}.*")
        await asyncio.to_thread(place.rename, sessions_dir / "away")
        with pytest.raises(UndoRefused, match=r"is there no more\. Snapshot .* was taken of it") as caught:
            await supervisor.undo(DEMO)
        assert (refused(caught), bool(caught.value.details["snapshot"])) == ("gone", True)
        await asyncio.to_thread((sessions_dir / "away").rename, place)
        async with supervisor.snapshot_stream(DEMO, taken, plain=True) as file:
            exported = await asyncio.to_thread(file.read)

        async def stream() -> AsyncIterator[bytes]:
            yield exported

        brought = await supervisor.bring(DEMO2, stream(), keep=True)
        await supervisor.restore(DEMO2, brought.id, wait=Wait.CONNECTED)
        for ask in (supervisor.check_undo, supervisor.undo):
            with pytest.raises(LoginInUse, match="login of demo2 already"):
                await ask(DEMO)
        await supervisor.cleanup(DEMO2)
        await swept(sessions_dir)
        (place,) = (sessions_dir / ".retired").glob(f"demo.{view.generation}.*")
        damage.zero(damage.manifest(damage.indexed_db(place)))
        with pytest.raises(UndoRefused, match="MANIFEST") as caught:
            await supervisor.undo(DEMO)
        assert refused(caught) == "damaged"
        assert supervisor.view(DEMO).status is Status.STOPPED


@pytest.fixture
def house(in_memory: Path, small: Written) -> Iterator[House]:
    house = House(in_memory / "sessions", small)
    yield house
    house.custody.drop_lock()


@real
@pytest.mark.browser
@pytest.mark.parametrize("there", ["another", "nothing"])
def test_a_daemon_that_dies_at_any_step_of_an_undo_leaves_both_profiles_whole(
    house: House, there: str
) -> None:
    first = house.log_in()
    house.custody.retire("cleanup", has_login=True)
    second = house.log_in() if there == "another" else ""
    copy = house.root.with_name("copy")
    subprocess.run(["cp", "-a", house.root, copy], check=True)

    def undo() -> None:
        Ladder(house.custody).take(GO, Source(retired=first), has_login=bool(second), generation=second)
        house.custody.drop_lock()

    outcomes = set()
    for _ in crashes_that_show(undo, STEPS, house.root):
        house.again()
        house.sweep()
        _, profile = house.profiles.find(ClientCode("demo"))
        outcomes.add(profile.generation if profile is not None else "")
        aside = {one.generation: one.path for one in house.profiles.aside.all()}
        for one in filter(None, {first, second}):
            here = profile is not None and profile.generation == one
            assert here is not (one in aside), one
            assert house.has_login(profile.path if here and profile is not None else aside[one])
        house.again()
        if profile is None or profile.generation != first:  # it is asked for again
            taken = Ladder(house.custody).take(GO, Source(retired=first), generation=second)
            assert (taken.how, taken.profile.generation) == ("returned", first)
            house.custody.drop_lock()
        shutil.rmtree(house.root)
        subprocess.run(["cp", "-a", copy, house.root], check=True)
    assert outcomes == {first, second}
    shutil.rmtree(copy)


# --- the command line ---------------------------------------------------------------------------------------------

VIEW = UndoView("demo", Deed.CLEANUP, 1_800_000_000.0, "G1", login=True, values=2, replaces="G2")


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandPort]:
    monkeypatch.chdir(tmp_path)
    store_tokens()
    with CommandPort() as serving:
        yield serving


def command(daemon: CommandPort, *arguments: str) -> Any:
    return call("undo", "demo", *arguments, "--url", daemon.url, env={"WAGUARD_TOKEN": ADMIN})


def test_it_says_what_it_would_take_back(daemon: CommandPort) -> None:
    daemon.handlers[f"POST {UNDO}"] = always(UndoTried(VIEW))
    result = command(daemon, "--dry-run")
    assert result.exit_code == 0
    assert "take back the cleanup of demo of " in result.stdout
    assert "the profile G1 would come back with its login, and 2 values of apps." in result.stdout
    assert "The profile G2, which is there now, would be put aside." in result.stdout
    assert '"generation": "G1"' in command(daemon, "--dry-run", "--json").stdout
    assert {request.query_string for request in daemon.requests} == {"dry_run=true"}


def test_without_a_terminal_it_has_to_be_meant(daemon: CommandPort) -> None:
    daemon.handlers[f"POST {UNDO}"] = always(UndoTried(VIEW))
    result = command(daemon)
    assert result.exit_code == 1
    assert "waguard undo demo --yes" in result.stderr
    assert [request.query_string for request in daemon.requests] == ["dry_run=true"]


def test_what_is_refused_is_told(daemon: CommandPort) -> None:
    error = UndoRefused("There is nothing.", hint="See: waguard snapshots demo", reason="nothing")
    daemon.handlers[f"POST {UNDO}"] = always(error)
    result = command(daemon, "--yes", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["code"] == "undo_refused"
