"""The table of routes: what it says of a route is what is served, and nothing is served that is not in it."""

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import aiohttp
import pytest
from aiohttp import web
from conftest import Daemon
from joserfc import jwk, jwt
from pydantic import SecretStr

from waguard.access.access import Access
from waguard.access.configured import ConfiguredTokens
from waguard.access.made import MadeTokens
from waguard.access.peers import Peers
from waguard.api import app, webhooks
from waguard.api.acts import ACTS, HARMLESS
from waguard.api.port import Port
from waguard.api.routes import ROUTES, Route, Streamed
from waguard.api.schemas import AnyOptions, Options, ScopeName
from waguard.audit.audit import Audit
from waguard.config.sections import Api, Jwt
from waguard.config.sections import Webhooks as Hooks
from waguard.core.access import OF_ADMIN, OF_CLIENT, OF_TOKENS, SCOPES, About, Scope
from waguard.observe.bus import Bus
from waguard.supervisor.supervisor import Supervisor
from waguard.webhooks.webhooks import Webhooks

NO_PEERS = Peers((), (), frozenset(), 0)
ADMIN, TOKEN = "admin-admin-admin-admin", "demo-demo-demo-demo"
API = {"admin_token": SecretStr(ADMIN), "client_tokens": {"demo": SecretStr(TOKEN)}}
KEY = jwk.ECKey.generate_key("P-256")
every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda one: f"{one.method} {one.path}")


def path_of(route: Route[Any]) -> str:
    return route.path.replace("{code}", "demo").replace("{id}", "newest").replace("{key}", "last")


async def tokens(directory: Path) -> Mapping[str, str]:
    """Some of each kind, as an earlier daemon would have left them in its file."""
    hour_ago = time.time() - 3600
    made = MadeTokens(directory, Bus().publish, lambda _alert, _text: None, lambda: hour_ago)
    found = {"expired": (await made.create("old", [Scope.READ, Scope.CONNECT], ["demo"], 60.0))[1]}
    every = [one for one in OF_TOKENS if one is not Scope.ADMIN]
    wanted: list[tuple[str, Sequence[Scope], list[str]]] = [
        ("revoked", every, ["demo"]),
        ("another's", every, ["demo2"]),
        ("of both", every, ["demo", "demo2"]),
        ("of all", every, ["*"]),
        ("admin", [Scope.ADMIN], ["*"]),
        *((one.value, [one], ["*"]) for one in every),
        *((f"{one.value} of demo", [one], ["demo"]) for one in every),
    ]
    for name, scopes, clients in wanted:
        found[name] = (await made.create(name, scopes, clients, None))[1]
    for label in ("sales", "vip"):
        found[f"of {label}"] = (await made.create(label, every, [], None, [label]))[1]
    made.mark_revoked("revoked")
    await made.write_revoked()
    return found


class Asking:
    def __init__(self, supervisor: Supervisor, url: str, http: aiohttp.ClientSession) -> None:
        self.supervisor = supervisor
        self._url = url
        self._http = http

    async def __call__(self, route: Route[Any], token: str | None, query: str = "") -> tuple[int, str]:
        """The status, and the error's code."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        address = self._url + path_of(route) + query
        async with self._http.request(route.method, address, headers=headers) as answer:
            told = await answer.json()
        code = "error" if route.about is About.OWN else "code"  # as the old CRM's form has it
        return answer.status, str(told.get(code, told.get("code", "")))


def of_the_crm(key: Any = KEY, algorithm: str = "ES256", **claims: Any) -> str:
    told = {"clientCode": "demo", "exp": time.time() + 3600, **claims}
    return jwt.encode({"alg": algorithm}, told, key, algorithms=[algorithm])


@asynccontextmanager
async def asking(pose: Daemon, directory: Path) -> AsyncIterator[Asking]:
    key = directory / "crm.pem"
    key.write_bytes(KEY.as_pem(private=False))
    async with (
        pose(
            "ok",
            api=API,
            jwt={"key_file": key, "algorithm": "ES256"},
            clients={"demo": {"labels": ["sales"]}},
        ) as (supervisor, url),
        aiohttp.ClientSession() as http,
    ):
        yield Asking(supervisor, url, http)


# Whoever gets past the gate is told next that this option is unknown, and nothing is done.
IN = (400, "invalid_request")


@every_route
async def test_who_may(pose: Daemon, sessions_dir: Path, tmp_path: Path, route: Route[Any]) -> None:
    """Each kind of token, at each route. Nothing is done."""
    sessions_dir.mkdir()
    known = await tokens(sessions_dir)
    shown: dict[str, tuple[str | None, tuple[int, str]]] = {}
    no = (403, "forbidden")
    yes = IN if route.options is not AnyOptions else (200, "")

    def expected(scopes: set[Scope], clients: set[str]) -> tuple[int, str]:
        if route.scope not in scopes:
            return no
        about = {
            About.ONE: bool({"demo", "*"} & clients),
            About.ALLOWED: True,
            About.EVERY: "*" in clients,
            About.OWN: len(clients) == 1 and "*" not in clients,
        }
        return yes if about[route.about] else no

    every = set(OF_TOKENS) - {Scope.ADMIN}
    shown["none"] = (None, (401, "unauthorized"))
    for name, wrong in {
        "wrong": "wrong-wrong-wrong",
        "half": known["of all"][:-1],
        "id": known["of all"][:13],
    }.items():
        shown[name] = (wrong, (401, "unauthorized"))
    shown["expired"] = (known["expired"], (401, "token_expired"))
    shown["revoked"] = (known["revoked"], (401, "token_revoked"))
    shown["another's"] = (known["another's"], expected(every, {"demo2"}))
    shown["of both"] = (known["of both"], expected(every, {"demo", "demo2"}))
    shown["of all"] = (known["of all"], expected(every, {"*"}))
    # Whoever has the label, and it is no client's own.
    shown["of sales"] = (known["of sales"], expected(every, {"demo"}) if route.about is not About.OWN else no)
    shown["of vip"] = (known["of vip"], expected(every, set()))
    for one in every:
        shown[one.value] = (known[one.value], expected({one}, {"*"}))
        shown[f"{one.value} of demo"] = (known[f"{one.value} of demo"], expected({one}, {"demo"}))
    shown["made admin"] = (known["admin"], expected({*OF_TOKENS}, {"*"}))
    shown["the admin's"] = (ADMIN, expected({*OF_ADMIN}, {"*"}))
    shown["the client's"] = (TOKEN, expected({*OF_CLIENT}, {"demo"}))
    shown["a JWT"] = (of_the_crm(), expected({*map(Scope, Jwt().scopes)}, {"demo"}))
    shown["a JWT of another"] = (
        of_the_crm(clientCode="demo2"),
        expected({*map(Scope, Jwt().scopes)}, {"demo2"}),
    )
    shown["an old JWT"] = (of_the_crm(exp=time.time() - 3600), (401, "token_expired"))
    for name, forged in {
        "another key": of_the_crm(jwk.ECKey.generate_key("P-256")),
        "another algorithm": of_the_crm(jwk.OctKey.generate_key(256), "HS256"),
        "no client": of_the_crm(clientCode=""),
    }.items():
        shown[f"a JWT, {name}"] = (forged, (401, "unauthorized"))
    async with asking(pose, tmp_path) as asked:
        for name, (token, wanted) in shown.items():
            if route.scope is Scope.OPEN:
                assert (await asked(route, token))[0] == 200, name
            elif wanted[0] == 200 or (
                route.about is About.OWN and wanted is no and token == known["another's"]
            ):  # the old CRM's routes look at no option: they would do it
                continue
            else:
                assert await asked(route, token, "?wiat=qr") == wanted, name
        assert asked.supervisor.views() == []


@every_route
def test_what_the_table_says_is_what_the_handler_does(route: Route[Any]) -> None:
    hints = get_type_hints(route.handler)
    assert hints.pop("return") in {route.view, route.view | web.Response, web.StreamResponse}
    assert route.options in hints.values()
    assert re.match(r"[A-Z].*[.]", route.says), "a sentence"
    is_text = "json" in route.media[0] or route.streamed is Streamed.EVENTS
    assert (route.view is bytes) is not is_text
    assert not (route.streamed is Streamed.IN and route.options.in_body)
    assert ("{code}" in route.path) is (route.about is About.ONE)


def test_a_token_and_the_configuration_know_the_same_scopes() -> None:
    names = {one.value for one in OF_TOKENS}
    assert set(get_args(ScopeName)) == names
    (of_peers,) = get_args(Api.model_fields["socket_scopes"].annotation)
    (of_jwts,) = get_args(Jwt.model_fields["scopes"].annotation)
    assert set(get_args(of_peers)) == names
    assert set(get_args(of_jwts)) == names - {"admin"}


def test_what_is_an_act_is_decided_of_each_route() -> None:
    """Of all that do more than to tell what anybody with the scope `read` may know."""
    for one in ROUTES:
        privileged = one.scope not in {Scope.OPEN, Scope.READ} or one.method != "GET"
        decided = [
            *(["act"] if one.handler in ACTS else []),
            *([HARMLESS[one.handler]] if one.handler in HARMLESS else []),
        ]
        assert len(decided) == privileged, f"{one.method} {one.path}: an act, or why not? {decided}"
    assert {*ACTS, *HARMLESS} <= {one.handler for one in ROUTES}


def test_a_path_is_in_the_table_once() -> None:
    keys = [(one.method, one.path) for one in ROUTES]
    assert len({*keys}) == len(keys)


def test_every_scope_is_described_and_some_route_asks_for_it() -> None:
    assert {*SCOPES} == {*Scope} == OF_ADMIN
    assert {one.scope for one in ROUTES} == {*Scope}


@pytest.mark.parametrize("scope", [None, "", "everybody"])
async def test_a_route_without_a_scope_is_refused_at_the_start(pose: Daemon, scope: Any) -> None:
    async with pose("ok") as (supervisor, _):
        stray = replace(ROUTES[2], scope=scope)
        with pytest.raises(ValueError, match=r"GET /v1/sessions: .* is no scope: who may\?"):
            application(supervisor, stray)


def application(supervisor: Supervisor, *more: Route[Any]) -> web.Application:
    bus = Bus()
    access = Access(
        ConfiguredTokens({}),
        MadeTokens(Path("/nowhere"), bus.publish, lambda _alert, _text: None),
        None,
        NO_PEERS,
        bus.publish,
        lambda _alert, _text: None,
    )
    audit = Audit(Path("/nowhere"), bus, lambda _alert, _text: None)
    hooks = Webhooks(
        Path("/nowhere"), Hooks(), supervisor.history.feed, bus, lambda _alert, _text: None, webhooks.body
    )
    port = Port(1, bus.publish, 1.0)
    return app.make(supervisor, access, Api(), bus, port, audit, hooks, [*ROUTES, *more])


async def test_what_is_served_is_in_the_table(pose: Daemon) -> None:
    async with pose("ok") as (supervisor, _):
        made = application(supervisor)
    served = {
        (one.method, one.resource.canonical)
        for one in made.router.routes()
        if one.resource is not None and one.method != "HEAD"
    }
    assert served == {(one.method, one.path) for one in ROUTES}
    assert all(issubclass(one.options, Options) for one in ROUTES)
