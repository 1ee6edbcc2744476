"""Whole walks on real Chromium and the simulator: what the product promises, seen from outside."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from clients import log_in, pid_of, token
from conftest import Daemon, Journal, decoded
from processes import alive, family, stop
from waiting import until

from waguard.browser.find import KNOWN
from waguard.core.model import ClientCode, Link, Login, Status, Wait
from waguard.core.shown import SessionView
from waguard.observe.bus import Event
from waguard.simulator.server import Cadence, Simulator
from waguard.supervisor.supervisor import Supervisor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not any(path.is_file() for path in KNOWN), reason="no Chromium is installed"),
]

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=Cadence(sync_s=0.2)) as simulator:
        yield simulator


@pytest.fixture(params=["bubblewrap", "plain"])
def sandbox(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"kind": request.param}


async def login_on_disk(sessions: Path, code: ClientCode) -> None:
    """Chromium writes localStorage seconds late: a login younger than that does not outlive a SIGKILL."""
    store = sessions / code / "profile" / "Default" / "Local Storage" / "leveldb"

    def written() -> bool:
        return any(b"last-wid-md" in file.read_bytes() for file in store.glob("*.log"))

    await until(written, "the login's marks on disk")


async def test_a_session_tells_whose_number_it_is_and_without_a_browser_nothing_of_one(
    start: Daemon, simulator: Simulator, journal: Journal, sessions_dir: Path
) -> None:
    async with start(whatsapp={"url": simulator.url}, probes={"memory_s": 0.2}) as (supervisor, _):
        assert (await supervisor.connect(DEMO)).login is Login.NONE
        (view,) = await log_in(supervisor, simulator, DEMO)
        assert (view.wid, view.push_name) == ("34600000000:1@c.us", "Phone 34600000000")
        assert view.login in {Login.NEW, Login.ON_DISK}
        (told,) = journal.named("session.account")
        assert told.fields["wid"] == "...000"
        await login_on_disk(sessions_dir, DEMO)
        await until(lambda: supervisor.view(DEMO).memory_mb is not None, "a look at its memory")
        await supervisor.disconnect(DEMO)
        view = supervisor.view(DEMO)
        assert view.login is Login.ON_DISK
        of_a_browser = (view.browser, view.memory_mb, view.page_version, view.wid, view.push_name, view.qr)
        assert (set(of_a_browser), [*view.signs]) == ({None}, [])
    assert "34600000000" not in str(journal.events)


async def test_a_client_gets_its_qr_code_its_session_and_keeps_its_login(
    start: Daemon, simulator: Simulator, sandbox: dict[str, str], sessions_dir: Path
) -> None:
    async with start(whatsapp={"url": simulator.url}, sandbox=sandbox) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        assert (view.status, view.profile) == (Status.AWAITING_SCAN, "fresh")
        (view,) = await log_in(supervisor, simulator, DEMO)
        assert view.status is Status.CONNECTED
        # The browser is killed: it comes back by itself, logged in.
        await login_on_disk(sessions_dir, DEMO)
        os.kill(pid_of(view), signal.SIGKILL)
        await until(
            lambda: (
                supervisor.view(DEMO).attempt != view.attempt and supervisor.view(DEMO).link is Link.CONNECTED
            ),
            "connected again",
        )
        # And after a polite stop.
        await supervisor.disconnect(DEMO)
        again = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (again.status, again.generation, again.profile) == (Status.CONNECTED, view.generation, "kept")
        restarted = await supervisor.restart(DEMO, wait=Wait.CONNECTED)
        assert restarted.attempt != again.attempt
    async with start(whatsapp={"url": simulator.url}, sandbox=sandbox) as (supervisor, _):
        view = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert view.profile == "kept"


async def test_a_login_that_is_called_saved_outlives_a_kill_the_second_one_too(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    """The marks of the first one are still in the log when the second is scanned."""
    async with start(whatsapp={"url": simulator.url}, snapshots={"settle_s": 30.0}) as (supervisor, _):
        await supervisor.connect(DEMO)
        assert supervisor.view(DEMO).saved is None
        for scan in range(3):
            simulator.scan(supervisor.qr(DEMO).text, "34600000000")
            await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
            if scan == 0:
                assert supervisor.view(DEMO).saved is not None
            await until(lambda: bool(supervisor.view(DEMO).saved), "saved", 10)
            view = supervisor.view(DEMO)
            os.kill(pid_of(view), signal.SIGKILL)
            await until(
                lambda attempt=view.attempt: (  # type: ignore[misc]  # a default binds it now
                    supervisor.view(DEMO).attempt != attempt and supervisor.view(DEMO).link is Link.CONNECTED
                ),
                "connected again",
            )
            assert supervisor.view(DEMO).profile == "kept"
            await simulator.log_out(simulator.devices[0].wid)
            await until(lambda: supervisor.view(DEMO).qr is not None, "a new code")
            assert supervisor.view(DEMO).saved is None


async def test_the_code_in_the_answer_is_the_one_on_the_page(start: Daemon, simulator: Simulator) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, url):
        headers = {"Authorization": "Bearer " + token(supervisor)}
        async with aiohttp.ClientSession(url, headers=headers) as client:
            async with client.post("/v1/sessions/demo/connect") as answer:
                said = (await answer.json())["qr"]["text"]
            browser = supervisor._sessions[DEMO]._instance.browser
            assert browser is not None
            assert browser.page is not None
            on_page = "document.querySelector('[data-ref]').getAttribute('data-ref')"
            assert said == await browser.page.evaluate(on_page)
            async with client.get(
                "/v1/sessions/demo/qr", headers={**headers, "Accept": "image/png"}
            ) as answer:
                assert said == decoded(await answer.read())
            async with client.get("/v1/sessions/demo/screenshot") as answer:
                assert said == decoded(await answer.read())


async def test_twenty_codes_at_once_have_twenty_browsers_and_codes_of_their_own(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    codes = [ClientCode(f"c{number}") for number in range(20)]
    answered: list[ClientCode] = []

    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):

        async def connect(code: ClientCode) -> SessionView:
            view = await supervisor.connect(code)
            answered.append(code)
            return view

        views = await asyncio.gather(*(connect(code) for code in codes))
        assert len({view.qr.text for view in views if view.qr is not None}) == 20
        assert len({pid_of(view) for view in views}) == 20
        # The first has its answer while the last has not even been started: nobody waits for all.
        (first,) = [event for event in journal.named("stage.done") if is_stage(event, answered[0], "open")]
        (last,) = [event for event in journal.named("stage.done") if is_stage(event, answered[-1], "start")]
        assert journal.events.index(first) < journal.events.index(last)


def is_stage(event: Event, code: ClientCode, stage: str) -> bool:
    return event.client == code and event.fields["stage"] == stage


async def test_twenty_callers_of_one_code_get_one_browser_and_equal_answers(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        views = await asyncio.gather(*(supervisor.connect(DEMO) for _ in range(20)))
        assert len(journal.named("browser.spawned")) == 1
        # Equal but for the age of the code, which counts on.
        (said,) = {(view.status, view.attempt, pid_of(view), view.qr and view.qr.text) for view in views}
        assert said[0] is Status.AWAITING_SCAN


async def test_qr_codes_rotate_and_used_up_ones_are_fetched_anew(start: Daemon) -> None:
    cadence = Cadence(first_s=0.2, next_s=0.1, refs=3)
    async with (
        Simulator(cadence=cadence) as simulator,
        start(whatsapp={"url": simulator.url}, page={"poll_s": 0.05}) as (supervisor, _),
    ):
        await supervisor.connect(DEMO)
        seen: set[str] = set()

        def look() -> bool:
            if supervisor.view(DEMO).qr:
                seen.add(supervisor.qr(DEMO).text)
            return len(seen) > 2 * cadence.refs

        await until(look, "codes of three batches")
        (view,) = await log_in(supervisor, simulator, DEMO)
        assert view.status is Status.CONNECTED


async def test_cleanup_of_one_leaves_the_others_alone(start: Daemon, simulator: Simulator) -> None:
    codes = [DEMO, DEMO2, ClientCode("demo-2"), ClientCode("xdemo")]
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        views = await log_in(supervisor, simulator, *codes)
        families = [family(pid_of(view)) for view in views]
        assert all(len(members) > 4 for members in families)
        report = await supervisor.cleanup(DEMO)
        assert report.ok
        assert {step.outcome for step in report.steps if step.step != "values"} == {"done"}
        assert not alive(families[0])
        for was, members in zip(views[1:], families[1:], strict=True):
            now = supervisor.view(ClientCode(was.client))
            assert (now.browser, now.link, now.attempt) == (was.browser, Link.CONNECTED, was.attempt)
            assert alive(members) == members
        view = await supervisor.connect(DEMO)
        assert (view.status, view.profile) == (Status.AWAITING_SCAN, "fresh")


async def test_a_stopped_browser_is_cleaned_and_connected_anew(
    start: Daemon, simulator: Simulator, sandbox: dict[str, str]
) -> None:
    async with start(whatsapp={"url": simulator.url}, sandbox=sandbox) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        assert view.browser is not None
        stopped = family(pid_of(view)) | set(view.browser.pids)
        stop(stopped)
        report = await supervisor.cleanup(DEMO)
        assert report.ok
        assert "stopped" in report.steps[1].detail
        assert not alive(stopped)
        assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN


async def test_a_looping_page_is_seen_and_its_script_ended(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    page, health = {"read_s": 0.3, "poll_s": 0.1}, {"busy_s": 1.0, "relapse_s": 0.01}
    async with start(whatsapp={"url": simulator.url}, page=page, health=health) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        await simulator.inject("spin")
        await until(lambda: bool(journal.named("health.recovered")), "cured")
        (remedy,) = journal.named("health.remedy")
        assert (remedy.fields["remedy"], remedy.fields["outcome"]) == ("terminate", "cured")
        after = supervisor.view(DEMO)
        assert (after.browser, after.link) == (view.browser, Link.AWAITING_SCAN)
        await simulator.clear_faults()


async def test_a_page_that_loops_is_cleaned_at_once(start: Daemon, simulator: Simulator) -> None:
    async with start(whatsapp={"url": simulator.url}, page={"read_s": 0.3}) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        await simulator.inject("spin")
        await until(lambda: silent(supervisor), "seen")
        members = family(pid_of(view))
        report = await supervisor.cleanup(DEMO)
        assert report.ok
        assert not alive(members)
        await simulator.clear_faults()
        assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN


def silent(supervisor: Supervisor) -> bool:
    return supervisor._sessions[DEMO]._watch.probing.renderer.silent


async def test_logged_out_by_the_phone_is_said_and_a_new_code_shown(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}, page={"poll_s": 0.05}) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        await simulator.log_out(simulator.devices[0].wid)
        await until(lambda: supervisor.view(DEMO).qr is not None, "a new code")
        now = supervisor.view(DEMO)
        assert (now.status, now.reason, now.attempt) == (Status.AWAITING_SCAN, "logged_out", view.attempt)


@pytest.mark.parametrize("boot", ["0", "0.2", "3"])
@pytest.mark.parametrize("strips", ["at_once", "booted", "navigates", "never_there"])
async def test_a_logout_is_told_however_quickly_the_page_leaves_its_address(
    start: Daemon, simulator: Simulator, journal: Journal, strips: str, boot: str
) -> None:
    """With the usual rhythm of looks, and a snapshot that it could be taken for damage with."""
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        await supervisor.snapshot(DEMO)
        await simulator.inject("strips_post_logout", strips)
        await simulator.inject("boot", boot)
        await simulator.log_out(simulator.devices[0].wid)
        await until(lambda: None not in {(now := supervisor.view(DEMO)).qr, now.finding}, "a new code", 30)
        now = supervisor.view(DEMO)
        assert (now.status, now.reason, now.attempt) == (Status.AWAITING_SCAN, "logged_out", view.attempt)
        assert now.finding is not None
        assert now.finding.fault == "logged_out"
        assert not [name for name in ("login.lost", "login.doubted") if journal.named(name)]
        assert person_needed(journal) == ["alert.raised"]
        assert now.qr is not None
        simulator.scan(now.qr.text, "34600000000")
        await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
        await until(lambda: person_needed(journal)[-1] == "alert.cleared", "nobody is needed")
        assert person_needed(journal) == ["alert.raised", "alert.cleared"]
        assert supervisor.view(DEMO).reason is None


async def test_a_person_is_needed_until_somebody_has_scanned(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    """Neither a restart of the browser, nor one of the daemon, nor a fault of the page scans a code."""
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await simulator.log_out(simulator.devices[0].wid)
        await until(lambda: bool(person_needed(journal)), "told")
        await supervisor.restart(DEMO)
        assert supervisor.view(DEMO).reason == "logged_out"
        assert person_needed(journal) == ["alert.raised"]
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        await until(lambda: supervisor.view(DEMO).qr is not None, "back, with a code")
        assert supervisor.view(DEMO).reason == "logged_out"
        assert person_needed(journal)[-1] == "alert.raised"
        simulator.scan(supervisor.qr(DEMO).text, "34600000000")
        await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
        await until(lambda: person_needed(journal)[-1] == "alert.cleared", "nobody is needed")


@pytest.mark.parametrize(
    ("until_when", "helps", "remedies"),
    [
        ("until_reload", True, ["reload"]),
        ("until_restart", True, ["reload", "restart"]),
        ("always", True, ["reload", "restart", "restore"]),
        ("always", False, ["reload", "restart", "restore"]),
    ],
)
async def test_a_page_that_asks_for_a_scan_and_has_its_login_gets_the_cheapest_remedy_first(
    start: Daemon, simulator: Simulator, journal: Journal, until_when: str, helps: bool, remedies: list[str]
) -> None:
    """A snapshot has not this browser's cookie, which the simulator knows the one by that it is to trouble."""
    health, restart = {"unpaired_s": 0.3}, {"base_s": 0.01, "max_s": 0.05}
    page = {"poll_s": 0.1}
    async with start(whatsapp={"url": simulator.url}, health=health, restart=restart, page=page) as (
        supervisor,
        _,
    ):
        (view,) = await log_in(supervisor, simulator, DEMO)
        await supervisor.snapshot(DEMO)
        wid = simulator.devices[0].wid
        await simulator.inject("unpaired_with_marks", until_when, wid=wid if helps else None)
        if helps:
            await until(lambda: bool(journal.named("health.recovered")), "cured")
            await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
        else:
            await until(lambda: bool(person_needed(journal)), "a person is asked")
        finding = journal.named("health.finding")[0]
        assert finding.fields["fault"] == "unpaired"
        assert "login marks" in finding.fields["evidence"][0]
        assert {one.fields["fault"] for one in journal.named("health.finding")} == {"unpaired"}
        assert [one.fields["remedy"] for one in journal.named("health.remedy")] == remedies
        assert not journal.named("login.lost")
        assert bool(journal.named("profile.restored")) is (remedies[-1] == "restore")
        if not helps:
            now = await supervisor.connect(DEMO)
            assert (now.status, now.reason) == (Status.AWAITING_SCAN, "unpaired")
            assert now.qr is not None
            simulator.scan(now.qr.text, "34600000000")
            await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
            await until(lambda: person_needed(journal)[-1] == "alert.cleared", "nobody is needed")
            assert person_needed(journal) == ["alert.raised", "alert.cleared"]
        assert (supervisor.view(DEMO).attempt == view.attempt) is (until_when == "until_reload")
        assert len(simulator.devices) == (1 if helps else 2)


def person_needed(journal: Journal) -> list[str]:
    ends = {"alert.raised", "alert.cleared"}
    return [one.name for one in journal.events if one.name in ends and one.fields["alert"] == "person_needed"]


async def test_a_login_lost_to_refused_storage_asks_for_a_scan_once_storage_works(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    restart = {"base_s": 0.01, "max_s": 0.05, "budget": 50}
    async with start(
        whatsapp={"url": simulator.url}, restart=restart, deadlines={"open": 1.5}, page={"poll_s": 0.1}
    ) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await simulator.inject("storage_refused")
        await supervisor.restart(DEMO, wait=Wait.NONE)
        await until(lambda: bool(journal.named("health.finding")), "found")
        # The page that finds no storage either says so or takes itself to be logged out; which is seen first is chance.
        assert journal.named("health.finding")[0].fields["fault"] in {"storage_refused", "logged_out"}
        await simulator.clear_faults()
        await until(lambda: supervisor.view(DEMO).qr is not None, "a code to scan")


async def test_a_crashed_renderer_is_loaded_again_logged_in(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        browser = supervisor._sessions[DEMO]._instance.browser
        assert browser is not None
        assert browser.page is not None
        session = browser.page._session
        session.send("Page.crash")
        await until(lambda: bool(journal.named("health.recovered")), "recovered")
        await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected again")
        assert supervisor.view(DEMO).browser == view.browser
        session.send(
            "Page.crash"
        )  # of the new renderer, and heard like the first; what relapses gets the next remedy
        await until(lambda: len(journal.named("health.recovered")) == 2, "recovered")
        assert [e.fields["remedy"] for e in journal.named("health.recovered")] == ["reload", "restart"]


async def test_a_server_that_never_answers_names_the_stage_and_costs_no_restart(
    start: Daemon, simulator: Simulator
) -> None:
    await simulator.inject("never_answers")
    async with start(
        whatsapp={"url": simulator.url},
        deadlines={"open": 1.0},
        restart={"base_s": 30.0, "max_s": 30.0, "budget": 0},
    ) as (supervisor, url):
        async with (
            aiohttp.ClientSession() as client,
            client.post(
                f"{url}/v1/sessions/demo/connect", headers={"Authorization": "Bearer " + token(supervisor)}
            ) as answer,
        ):
            body = await answer.json()
        assert (answer.status, body["code"], body["stage"]) == (504, "deadline_exceeded", "open")
        assert "Stage open" in body["detail"]
        view = supervisor.view(DEMO)
        assert (view.link, view.reason, view.automatic_restarts) == (Link.LOST, "offline", 0)
        assert view.next_try_s is not None


async def test_browsers_never_run_as_root_and_keep_their_own_sandbox(
    start: Daemon, simulator: Simulator
) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        init = pid_of(view)
        browsers = family(init) - {init}
        assert browsers
        seccomp = []
        for pid in browsers:
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if ":\t" in line
            )
            assert "0" not in status["Uid"].split()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert b"--no-sandbox" not in command
            if b"--type=renderer" in command:
                seccomp.append(status["Seccomp"])
        assert seccomp
        assert set(seccomp) == {"2"}, "a renderer without its filter"


SERVE = "import asyncio; from waguard import daemon; from waguard.config.load import load; asyncio.run(daemon.serve(load()))"


@contextmanager
def daemon_process(sessions: Path, url: str, sandbox: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon of its own, to be killed."""
    environ = {
        **os.environ,
        "WAGUARD_CONFIG": "/dev/null",
        "WAGUARD_SESSIONS__DIR": str(sessions),
        "WAGUARD_WHATSAPP__URL": url,
        "WAGUARD_API__PORT": "0",
        "WAGUARD_SANDBOX__KIND": sandbox,
        "WAGUARD_LIMITS__SESSION_MEMORY_MB": "0",
        "WAGUARD_PAGE__POLL_S": "0.1",
        "WAGUARD_LOG__FORMAT": "json",
    }
    process = subprocess.Popen([sys.executable, "-c", SERVE], env=environ, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


async def ready(process: subprocess.Popen[str]) -> str:
    """The control port's address."""
    assert process.stderr is not None
    while line := await asyncio.to_thread(process.stderr.readline):
        event = json.loads(line)
        if event["event"] == "daemon.ready":
            return str(event["url"])
    raise AssertionError("the daemon did not come up")


async def test_a_killed_daemon_leaves_nothing_to_the_next(
    start: Daemon, simulator: Simulator, sessions_dir: Path, sandbox: dict[str, str], journal: Journal
) -> None:
    with daemon_process(sessions_dir, simulator.url, sandbox["kind"]) as process:
        url = await ready(process)
        headers = {
            "Authorization": "Bearer " + json.loads((sessions_dir / ".tokens.json").read_text())["admin"]
        }
        async with aiohttp.ClientSession(headers=headers) as client:

            async def connect(code: str) -> list[int]:
                async with client.post(f"{url}/v1/sessions/{code}/connect") as answer:
                    body = await answer.json()
                    assert answer.status == 200, body
                    return [int(pid) for pid in body["browser"]["pids"]]

            pids = await asyncio.gather(*(connect(f"c{number}") for number in range(5)))
        everything = set().union(*(family(own[0]) | set(own) for own in pids))
        stopped = family(pids[0][0]) | set(pids[0])
        command = Path(f"/proc/{max(stopped)}/cmdline").read_bytes().split(b"\0")
        # A decoy with the same command line, and one that has the profile's lock file open.
        lock = next((sessions_dir / ".profiles").glob("*.lock"))
        with lock.open() as held:
            same_words = ["browser", *(word.decode() for word in command[1:] if word)]
            decoys = [
                subprocess.Popen(["/usr/bin/tail", "-f", "/dev/null"], stdin=held),
                subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", *same_words]),
            ]
        try:
            stop(stopped)
            process.kill()
            process.wait()
            assert alive(stopped) == stopped
            async with start(whatsapp={"url": simulator.url}, sandbox=sandbox) as (supervisor, _):
                # The daemon is ready, nothing was connected yet: what was left is gone already.
                assert not alive(everything)
                assert journal.named("reaper.killed")
                assert all(decoy.poll() is None for decoy in decoys)
                assert len(supervisor.views()) == 5
                view = await supervisor.connect(ClientCode("c0"))
                assert (view.status, view.profile) == (Status.AWAITING_SCAN, "kept")
                assert all(decoy.poll() is None for decoy in decoys)
        finally:
            for decoy in decoys:
                decoy.kill()
                decoy.wait()


async def test_a_killed_daemon_costs_nobody_a_scan(
    start: Daemon, simulator: Simulator, sessions_dir: Path, sandbox: dict[str, str]
) -> None:
    with daemon_process(sessions_dir, simulator.url, sandbox["kind"]) as process:
        url = await ready(process)
        headers = {
            "Authorization": "Bearer " + json.loads((sessions_dir / ".tokens.json").read_text())["admin"]
        }
        async with aiohttp.ClientSession(url, headers=headers) as client:
            async with client.post("/v1/sessions/demo/connect") as answer:
                simulator.scan((await answer.json())["qr"]["text"], "34600000000")
            async with client.post("/v1/sessions/demo/connect?wait=connected") as answer:
                assert (await answer.json())["status"] == "connected"
        await login_on_disk(sessions_dir, DEMO)
        process.kill()
        process.wait()
    async with start(whatsapp={"url": simulator.url}, sandbox=sandbox) as (supervisor, _):
        view = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (view.status, view.profile) == (Status.CONNECTED, "kept")
        assert len(simulator.devices) == 1
