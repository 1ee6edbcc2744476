"""How often somebody may ask, and who is slowed for wrong tokens."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from conftest import Daemon
from control_port import ADMIN, API, TOKEN
from hypothesis import given
from hypothesis import strategies as st

from waguard.access.refusals import FREE, Refusals
from waguard.core.model import Alert
from waguard.core.rate import Rate
from waguard.errors import Unauthorized


@given(st.integers(1, 200), st.lists(st.floats(0, 30), max_size=300))
def test_never_more_than_a_minutes_worth_and_what_has_come_since(most: int, waits: list[float]) -> None:
    rate, now, taken = Rate(most), 0.0, 0
    for wait in waits:
        now += wait
        left = rate.take("a", now)
        taken += left == 0.0
        assert taken <= most + now * most / 60 + 1e-6
        if left:
            assert left >= 0.1
            assert rate.take("a", now + left + 1e-6) == 0.0, "it is not said too early"
            now += left + 1e-6
            taken += 1
    assert rate.take("b", now) == 0.0, "and nobody else pays"


@given(st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 1)), max_size=200))
def test_of_many_who_ask_once_nobody_is_kept_for_ever(asked: list[tuple[int, float]]) -> None:
    rate, now = Rate(60), 0.0
    for one in range(5000):
        now += 0.1
        assert rate.take(one, now) == 0.0
    assert len(rate._asked) <= 1011
    for key, wait in asked:
        now += wait
        rate.take(key, now)


def test_no_limit() -> None:
    rate = Rate(0)
    assert not any(rate.take("a", 0.0) for _ in range(10_000))


async def test_what_costs_much_is_limited_for_each_client_and_verb(pose: Daemon) -> None:
    api = {**API, "costly_per_minute": 2}
    async with pose("ok", api=api) as (_, url), aiohttp.ClientSession() as http:

        async def ask(path: str, token: str = ADMIN) -> tuple[int, dict[str, Any], str]:
            headers = {"Authorization": f"Bearer {token}"}
            async with http.post(url + path, headers=headers) as answer:
                return answer.status, await answer.json(), answer.headers.get("Retry-After", "")

        for _ in range(2):
            assert (await ask("/v1/sessions/demo/connect"))[0] == 200
        status, told, after = await ask("/v1/sessions/demo/connect")
        assert (status, told["code"]) == (429, "too_many_requests")
        assert 0 < told["retry_after_s"] <= 30
        assert 1 <= int(after) <= 30
        assert (await ask("/v1/sessions/demo/connect", TOKEN))[0] == 200, "another token"
        assert (await ask("/v1/sessions/demo2/connect"))[0] == 200, "another client"
        assert (await ask("/v1/sessions/demo/disconnect"))[0] == 200, "another verb"
        headers = {"Authorization": f"Bearer {ADMIN}"}
        for _ in range(5):
            async with http.get(f"{url}/v1/sessions/demo", headers=headers) as answer:
                assert answer.status == 200


async def test_wrong_tokens_are_slowed_and_told_and_good_ones_are_not(pose: Daemon) -> None:
    async with pose("ok", api=API) as (supervisor, url), aiohttp.ClientSession() as http:

        async def ask(token: str) -> tuple[int, float]:
            began = time.monotonic()
            async with http.get(f"{url}/v1/sessions", headers={"Authorization": f"Bearer {token}"}) as answer:
                await answer.read()
            return answer.status, time.monotonic() - began

        answers = [await ask("wrong") for _ in range(FREE)]
        assert {status for status, _ in answers} == {401}
        wrong = asyncio.gather(*(ask("wrong") for _ in range(80)))
        await asyncio.sleep(0)
        assert (await ask(ADMIN))[0] == 200
        assert not wrong.done(), "whoever has a good token goes before"
        slowed = await wrong
        assert min(took for _, took in slowed) >= 1.0
        (alert,) = [one for one in supervisor.alerts() if one.alert is Alert.TOKENS_REFUSED]
        assert "100 requests in the last ten minutes" in alert.text
        assert "the last one: unauthorized, from 127.0.0.1." in alert.text


async def test_the_alert_ends_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now, alerts = 0.0, dict[Alert, str]()
    refusals = Refusals(alerts.__setitem__, lambda: now)
    for _ in range(120):
        now += 4.0
        await refusals.slow(Unauthorized("No."), "")
    assert alerts[Alert.TOKENS_REFUSED]
    now += 300.0
    refusals.look()
    assert not alerts[Alert.TOKENS_REFUSED]
