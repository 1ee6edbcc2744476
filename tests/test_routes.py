"""The table of routes: what it says of a route is what is served, and nothing is served that is not in it."""

import re
from dataclasses import replace
from typing import Any, get_type_hints

import aiohttp
import pytest
from aiohttp import web
from conftest import Daemon
from pydantic import SecretStr

from waguard.api import app, auth
from waguard.api.port import Port
from waguard.api.routes import ROUTES, Route, Streamed
from waguard.api.schemas import AnyOptions, Options
from waguard.api.scopes import OF_ADMIN, OF_CLIENT, SCOPES, Scope
from waguard.config.sections import Api
from waguard.observe.bus import Bus

ADMIN, TOKEN = "admin-admin-admin-admin", "demo-demo-demo-demo"
API = {"admin_token": SecretStr(ADMIN), "client_tokens": {"demo": SecretStr(TOKEN)}}
every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda one: f"{one.method} {one.path}")


def path_of(route: Route[Any]) -> str:
    return route.path.replace("{code}", "demo").replace("{id}", "newest")


@every_route
async def test_who_may_and_what_may_be_sent(
    pose: Daemon, route: Route[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token: 401. One without the scope: 403. An option that it does not know: 400. And nothing is done."""
    monkeypatch.setattr(auth, "OF_CLIENT", frozenset({Scope.OPEN}))  # it may do nothing
    async with pose("ok", api=API) as (supervisor, url), aiohttp.ClientSession() as http:

        async def asked(token: str | None, query: str = "") -> tuple[int, dict[str, Any]]:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            address = url + path_of(route) + query
            async with http.request(route.method, address, headers=headers) as answer:
                return answer.status, await answer.json()

        code = "error" if route.scope is Scope.OWN else "code"  # as the old CRM's form has it
        if route.scope is Scope.OPEN:
            assert (await asked(None))[0] == 200
            assert (await asked(TOKEN))[0] == 200
        else:
            for token in (None, "wrong-wrong-wrong"):
                status, told = await asked(token)
                assert (status, told[code]) == (401, "unauthorized")
            status, told = await asked(TOKEN, "?wiat=qr")  # who may not is not told what else is wrong
            assert (status, told[code]) == (403, "forbidden")
        if route.scope is Scope.OWN:
            status, told = await asked(ADMIN)
            assert (status, told[code]) == (403, "forbidden")
        if route.options is not AnyOptions:
            status, told = await asked(ADMIN, "?wiat=qr")
            assert (status, told["code"]) == (400, "invalid_request")
            assert told["detail"] == "wiat: is unknown."
        assert supervisor.views() == []


@every_route
def test_what_the_table_says_is_what_the_handler_does(route: Route[Any]) -> None:
    hints = get_type_hints(route.handler)
    assert hints.pop("return") in {route.view, route.view | web.Response, web.StreamResponse}
    assert route.options in hints.values()
    assert re.match(r"[A-Z].*[.]", route.says), "a sentence"
    assert (route.view is bytes) is ("json" not in route.media[0])
    assert not (route.streamed is Streamed.IN and route.options.in_body)


def test_a_path_is_in_the_table_once() -> None:
    keys = [(one.method, one.path) for one in ROUTES]
    assert len({*keys}) == len(keys)


def test_every_scope_is_described_and_some_token_has_it() -> None:
    assert {*SCOPES} == {*Scope} == OF_ADMIN | OF_CLIENT
    assert {one.scope for one in ROUTES} == {*Scope}


@pytest.mark.parametrize("scope", [None, "", "everybody"])
async def test_a_route_without_a_scope_is_refused_at_the_start(pose: Daemon, scope: Any) -> None:
    async with pose("ok") as (supervisor, _):
        stray = replace(ROUTES[2], scope=scope)
        with pytest.raises(ValueError, match=r"GET /v1/sessions: .* is no scope: who may\?"):
            app.make(supervisor, auth.Tokens({}), Api(), Bus(), Port(1, Bus().publish, 1.0), [*ROUTES, stray])


async def test_what_is_served_is_in_the_table(pose: Daemon) -> None:
    async with pose("ok") as (supervisor, _):
        made = app.make(supervisor, auth.Tokens({}), Api(), Bus(), Port(1, Bus().publish, 1.0))
    served = {
        (one.method, one.resource.canonical)
        for one in made.router.routes()
        if one.resource is not None and one.method != "HEAD"
    }
    assert served == {(one.method, one.path) for one in ROUTES}
    assert all(issubclass(one.options, Options) for one in ROUTES)
