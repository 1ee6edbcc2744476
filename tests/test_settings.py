"""Settings of one client: where each comes from, what is refused, who may, and what survives what."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from clients import DEMO
from conftest import Daemon, Journal
from control_port import API, TOKEN, Answer, Port, is_problem
from waiting import until

from waguard.config.clients import ClientSettings, Proxy
from waguard.config.load import load
from waguard.config.put import FOLDER, Settings, password_of
from waguard.config.sections import Config
from waguard.core.model import Status
from waguard.errors import ConfigError, DiskFull, StorageFailed
from waguard.session.way_out import WayOut

SETTINGS = "/v1/sessions/demo/settings"
PROXY = {"url": "http://proxy.example:3128", "user": "demo", "password": "geheim-geheim"}


@pytest.fixture
def port(pose: Daemon) -> Any:
    @asynccontextmanager
    async def opening(**sections: dict[str, Any]) -> AsyncIterator[Port]:
        async with (
            pose("connected", **sections, api=API) as (supervisor, url),
            aiohttp.ClientSession() as http,
        ):
            yield Port(url, supervisor, http)

    return opening


async def put(port: Port, wanted: dict[str, Any], query: str = "", **headers: str) -> Answer:
    return await port.ask("PUT", SETTINGS + query, body=json.dumps(wanted), **headers)


async def held(port: Port) -> dict[str, tuple[Any, str]]:
    answer = await port.ask("GET", SETTINGS)
    return {key: (one["value"], one["origin"]) for key, one in answer.json["settings"].items()}


async def test_what_is_put_wins_over_the_file_which_wins_over_what_is_for_all(port: Any) -> None:
    async with port(clients={"demo": {"language": "de-DE", "snapshots_keep_last": 5}}) as demo:
        before = await held(demo)
        assert before["language"] == ("de-DE", "file")
        assert before["snapshots_keep_last"] == (5, "file")
        assert before["snapshots_keep_daily"] == (7, "all")
        answer = await put(demo, {"language": "es-ES", "labels": ["sales", "sales"]})
        assert answer.status == 200
        assert answer.json["settings"]["language"] == {"value": "es-ES", "origin": "put"}
        assert (await held(demo))["labels"] == (["sales"], "put")
        await put(demo, {"labels": None})
        assert await held(demo) == before


async def test_a_password_is_shown_to_nobody_and_stays_for_the_same_place(
    port: Any, sessions_dir: Path, journal: Journal
) -> None:
    async with port() as demo:
        answer = await put(demo, {"proxy": PROXY})
        shown = {"url": PROXY["url"], "user": "demo", "password_set": True}
        assert answer.json["settings"]["proxy"]["value"] == shown
        kept = sessions_dir / FOLDER / "demo.json"
        assert kept.stat().st_mode & 0o077 == 0
        assert kept.parent.stat().st_mode & 0o077 == 0
        unsaid = {key: PROXY[key] for key in ("url", "user")}
        again = await put(demo, {"proxy": unsaid, "language": "es-ES"})
        assert again.json["settings"]["proxy"]["value"] == shown
        assert "geheim" in kept.read_text()
        elsewhere = await put(demo, {"proxy": {**unsaid, "url": "http://elsewhere.example:3128"}})
        assert elsewhere.json["settings"]["proxy"]["value"]["password_set"] is False
        assert "geheim" not in kept.read_text()
        await put(demo, {"proxy": PROXY})
    told = b"".join(path.read_bytes() for path in sessions_dir.rglob("*") if path.is_file() and path != kept)
    assert b"geheim" not in told, "the history, the audit"
    assert "geheim" not in repr(journal.events)
    assert b'"settings"' in told, "the audit has that it was done"


async def test_who_was_not_the_last_is_told(port: Any) -> None:
    async with port() as demo:
        first = (await demo.ask("GET", SETTINGS)).headers["ETag"]
        done = await put(demo, {"language": "es-ES"}, If_Match=first)
        is_problem(await put(demo, {"language": "de-DE"}, If_Match=first), 412, "precondition_failed")
        assert (await put(demo, {"language": "de-DE"}, If_Match=done.headers["ETag"])).status == 200


async def test_an_answer_has_the_etag_of_its_own_settings(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    renew, others = WayOut.renew, [{"language": "de-DE"}]
    async with port() as demo:
        await demo.supervisor.connect(DEMO)

        async def renewing(way: WayOut) -> None:
            await renew(way)
            if others:
                await put(demo, others.pop())

        monkeypatch.setattr(WayOut, "renew", renewing)
        mine = (await put(demo, {"language": "es-ES"})).headers["ETag"]
        is_problem(await put(demo, {}, If_Match=mine), 412, "precondition_failed")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"lang": "x"}, "lang: is unknown"),
        ({"language": "Spanish!"}, "language: "),
        ({"labels": ["Not One"]}, "'Not One' is not a label"),
        ({"time_zone": "Europe/Madird"}, "is not one, like"),
        ({"priority": "urgent"}, "priority: "),
        ({"extra_flags": ["--user-data-dir=/x"]}, "--user-data-dir is not allowed here"),
        ({"proxy": {"url": "http://a:geheim@b:1"}}, "must have no credentials"),
        ({"proxy": {"url": "http://b"}}, "must be like"),
        ({"proxy": {"url": "http://b:1", "user": "a:b"}}, "must have no colon"),
        ({"proxy": {"url": "http://b:1", "password": "geheim"}}, "password needs user"),
        ({"proxy": {"url": "http://b:1", "user": "a", "password": "geheim\n"}}, "control characters"),
        (
            {"proxy": {"url": "http://b:1", "user": "a", "password_file": "/etc/shadow"}},
            "for the configuration",
        ),
        ({"memory_max_mb": 100}, "must not be smaller than recycle_hard_memory_mb"),
        ({"recycle_soft_memory_mb": 5000}, "must not be larger than"),
    ],
)
async def test_a_wrong_value_gets_a_clear_answer_and_changes_nothing(
    port: Any, wanted: dict[str, Any], said: str
) -> None:
    async with port() as demo:
        await put(demo, {"language": "es-ES"})
        problem = is_problem(await put(demo, wanted), 400, "invalid_request")
        assert said in problem["detail"]
        assert "geheim" not in json.dumps(problem)
        assert (await held(demo))["language"] == ("es-ES", "put")


async def test_no_setting_stands_in_an_address(port: Any) -> None:
    async with port() as demo:
        is_problem(await demo.ask("PUT", SETTINGS + "?language=es-ES"), 400, "invalid_request")
        is_problem(await demo.ask("GET", SETTINGS, TOKEN), 403, "forbidden")


async def test_what_needs_another_browser_says_so_and_offers_it(port: Any) -> None:
    async with port() as demo:
        view = await demo.supervisor.connect(DEMO)
        answer = await put(demo, {"language": "es-ES", "labels": ["vip"], "time_zone": "Europe/Madrid"})
        assert answer.json["needs_restart"] == ["language", "time_zone"]
        assert answer.json["restarted"] is False
        answer = await put(demo, {"language": "es-ES"}, "?restart=true")
        assert answer.json["restarted"] is True
        await until(lambda: demo.supervisor.view(DEMO).status is Status.CONNECTED)
        await until(lambda: demo.supervisor.view(DEMO).attempt != view.attempt)
        await until(lambda: not demo.supervisor.settings_view(DEMO).needs_restart)


async def test_what_is_put_during_a_start_is_used_or_said_to_need_another_one(
    port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, said = WayOut.begin, []
    async with port(clients={"demo": {"proxy": PROXY}}) as demo:

        async def beginning(way: WayOut, proxy: Proxy | None) -> Any:
            made = await begin(way, proxy)
            wanted = {"proxy": {"url": "http://other.example:1"}, "language": "es-ES"}
            said.append((await put(demo, wanted)).json["needs_restart"])
            return made

        monkeypatch.setattr(WayOut, "begin", beginning)
        await demo.supervisor.connect(DEMO)
        browser = demo.supervisor._sessions[DEMO]._instance.browser
        assert browser is not None
        assert browser.forwarder is not None
        assert browser.forwarder._upstream.url == "http://other.example:1"
    assert said == [["language"]]


async def test_settings_outlive_the_daemon_and_a_cleanup(port: Any) -> None:
    async with port() as demo:
        await put(demo, {"labels": ["vip"]})
        await demo.supervisor.connect(DEMO)
        assert demo.supervisor.view(DEMO).labels == ["vip"]
        await demo.supervisor.cleanup(DEMO)
    async with port() as demo:
        assert (await held(demo))["labels"] == (["vip"], "put")


async def test_a_file_that_is_half_written_stops_its_client_alone(
    port: Any, sessions_dir: Path, journal: Journal
) -> None:
    async with port() as demo:
        await put(demo, {"proxy": PROXY})
    file = sessions_dir / FOLDER / "demo.json"
    file.write_bytes(file.read_bytes()[:-40])
    async with port() as demo:
        assert [one.client for one in journal.named("settings.unreadable")] == [DEMO]
        is_problem(await demo.ask("GET", SETTINGS), 500, "storage_failed")
        is_problem(await demo.ask("POST", "/v1/sessions/demo/connect"), 500, "storage_failed")
        assert (await demo.ask("POST", "/v1/sessions/demo2/connect")).status == 200
        assert (await put(demo, {"language": "es-ES"})).status == 200, "an admin has put others"
        assert list(file.parent.glob("demo.*.unreadable"))
    assert "geheim" not in repr(journal.events)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "[clients.demo]\nlanguge = 'x'",
            "config.toml:2: clients.demo.languge: there is no such key. Did you mean 'language'?",
        ),
        (
            "[clients.demo]\nproxy = {url = 'http://b:1', usr = 'x'}",
            "clients.demo.proxy.usr: there is no such key.",
        ),
        (
            "[clients.demo]\ntime_zone = 'Europe/Madird'",
            "config.toml:2: clients.demo.time_zone: 'Europe/Madird' is not one",
        ),
        ("[clients.'de mo']", "'de mo' is not a client code"),
        ("[clients]\ndemo = 3", "must be a table"),
        ("[clients.demo]\nmemory_max_mb = 100", "clients.demo.memory_max_mb must not be smaller than"),
        (
            "[clients.demo]\nproxy = {url = 'http://b:1', user = 'a', password = 12345678}",
            "clients.demo.proxy.password: must be",
        ),
    ],
)
def test_a_wrong_table_gets_a_clear_answer(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "config.toml").write_text(line)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "config.toml", {})
    assert said in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_no_variable_is_of_one_client() -> None:
    with pytest.raises(ConfigError, match=r"WAGUARD_CLIENTS__DEMO: \[clients\] is set in the file alone\."):
        load(environ={"WAGUARD_CLIENTS__DEMO": "{}"})


async def test_a_full_disk_changes_nothing(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(Config.model_validate({"sessions": {"dir": tmp_path}}), journal.bus.publish)
    await settings.start()
    await settings.put(DEMO, ClientSettings(language="es-ES"))

    def full(*_: object, **__: object) -> None:
        raise DiskFull("There is no room.")

    monkeypatch.setattr("waguard.config.put.write_atomically", full)
    with pytest.raises(DiskFull):
        await settings.put(DEMO, ClientSettings(language="de-DE"))
    assert settings.of(DEMO).language == "es-ES"


async def test_a_file_that_cannot_be_read_stays_one_if_no_other_can_be_written(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate({"sessions": {"dir": tmp_path}})
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "demo.json").write_text("{")

    def full(*_: object, **__: object) -> None:
        raise DiskFull("There is no room.")

    monkeypatch.setattr("waguard.config.put.write_atomically", full)
    for _ in range(2):
        settings = Settings(config, journal.bus.publish)
        await settings.start()
        with pytest.raises(StorageFailed):
            settings.of(DEMO)
        with pytest.raises(DiskFull):
            await settings.put(DEMO, ClientSettings())


async def test_who_cannot_be_read_has_no_label(tmp_path: Path, journal: Journal) -> None:
    sections = {"sessions": {"dir": tmp_path}, "clients": {"demo": {"labels": ["sales"]}}}
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "demo.json").write_text("{")
    settings = Settings(Config.model_validate(sections), journal.bus.publish)
    await settings.start()
    assert not settings.labels_of(DEMO)
    await settings.put(DEMO, ClientSettings())
    assert settings.labels_of(DEMO) == {"sales"}


async def test_a_password_is_read_from_its_file_when_it_is_needed(tmp_path: Path, journal: Journal) -> None:
    file = tmp_path / "password"
    proxy = {"url": "http://b:1", "user": "a", "password_file": file}
    config = Config.model_validate({"sessions": {"dir": tmp_path}, "clients": {"demo": {"proxy": proxy}}})
    settings = Settings(config, journal.bus.publish)
    await settings.start()

    async def password() -> str:
        held = settings.of(DEMO).proxy
        assert held is not None
        return await password_of(held)

    with pytest.raises(StorageFailed):
        await password()
    file.write_text("geheim\nmore\n")
    assert await password() == "geheim"
    await settings.put(DEMO, ClientSettings(proxy=Proxy(url="http://b:1", user="a"), language="es-ES"))
    settings = Settings(config, journal.bus.publish)
    await settings.start()
    assert await password() == "geheim", "also for the same place, put anew"
    file.write_text("geh\aeim\n")
    with pytest.raises(StorageFailed, match="control characters"):
        await password()


async def test_a_token_for_a_label_is_for_whoever_has_it_at_that_moment(port: Any) -> None:
    async with port() as demo:
        body = json.dumps({"name": "crm", "scopes": ["read", "connect"], "labels": ["sales"]})
        token = (await demo.ask("POST", "/v1/tokens", body=body)).json["token"]
        await demo.supervisor.connect(DEMO)

        async def sees() -> tuple[int, list[str]]:
            one = await demo.ask("GET", "/v1/sessions/demo", token)
            listed = await demo.ask("GET", "/v1/sessions", token)
            return one.status, [view["client"] for view in listed.json["sessions"]]

        assert await sees() == (403, [])
        await put(demo, {"labels": ["sales"]})
        assert await sees() == (200, ["demo"])
        assert (await demo.ask("GET", "/v1/sessions?label=sales,vip")).json["sessions"]
        assert not (await demo.ask("GET", "/v1/sessions?label=vip")).json["sessions"]
        is_problem(await demo.ask("GET", "/v1/stats", token), 403, "forbidden")
        await put(demo, {})
        assert await sees() == (403, [])


@pytest.mark.parametrize("whose", [{}, {"clients": ["*"], "labels": ["sales"]}, {"labels": ["No"]}])
async def test_a_token_is_for_somebody(port: Any, whose: dict[str, Any]) -> None:
    async with port() as demo:
        body = json.dumps({"name": "crm", "scopes": ["read"], **whose})
        is_problem(await demo.ask("POST", "/v1/tokens", body=body), 400, "invalid_request")


async def test_a_bot_is_sent_away_when_its_client_loses_the_label(port: Any) -> None:
    async with port() as demo:
        await put(demo, {"labels": ["sales"]})
        await demo.supervisor.connect(DEMO)
        body = json.dumps({"name": "bot", "scopes": ["read", "drive"], "labels": ["sales"]})
        token = (await demo.ask("POST", "/v1/tokens", body=body)).json["token"]
        address = demo.url.replace("http", "ws") + "/v1/sessions/demo/cdp"
        async with demo.http.ws_connect(address, headers={"Authorization": f"Bearer {token}"}) as ws:
            await put(demo, {})
            async with asyncio.timeout(30):
                assert (await ws.receive()).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
