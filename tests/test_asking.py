"""What is asked of a daemon: each route has its verb, each verb is on the client, and what comes back is read as it is."""

import inspect
import io
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.api import sse
from waguard.api.routes import ROUTES
from waguard.asking import daemon, verbs
from waguard.asking.ask import Answer, Ask
from waguard.asking.frames import MOST_BYTES, Frame, Frames, happening
from waguard.client.client import PATIENCE_S, SILENT_S, Client, Session
from waguard.config.clients import ClientSettings
from waguard.config.sections import Config
from waguard.core.access import About
from waguard.core.model import ClientCode
from waguard.core.shown import EventView
from waguard.errors import Foreign, InvalidRequest, NoPage, NotWaguard

DEMO = ClientCode("demo")
OTHERWISE = {
    "GET /v1/sessions/{code}/cdp": "`Session.page`: a WebSocket",
    "GET /v1/sessions/{code}/cdp/json/version/": "for drivers: the same without the slash",
    "GET /v1/sessions/{code}/cdp/json/list": "for drivers",
    "GET /v1/sessions/{code}/cdp/json/list/": "for drivers",
    "POST /api/whatsapp/connect": "the old CRM's: `Session.connect`",
    "POST /api/whatsapp/force-cleanup": "the old CRM's: `Session.cleanup`",
}
"""Routes that no verb asks, and why."""
GIVEN: dict[str, Any] = {
    "code": DEMO,
    "archive": io.BytesIO(),
    "clients": ["x"],
    "file": io.BytesIO(),
    "into": io.BytesIO(),
    "said": b"",
    "scopes": ["x"],
    "wanted": dict.fromkeys(ClientSettings.model_fields),
}
"""Arguments by their names; else any text."""
VERBS: dict[str, Callable[..., Ask[Any]]] = {
    name: one
    for module in (verbs, daemon)
    for name, one in vars(module).items()
    if inspect.isfunction(one) and one.__module__ == module.__name__ and not name.startswith("_")
}
each_verb = pytest.mark.parametrize("name", VERBS)
URL = "http://127.0.0.1:8717"


def asked(verb: Callable[..., Ask[Any]], **given: Any) -> Ask[Any]:
    needed = [name for name, one in inspect.signature(verb).parameters.items() if one.default is one.empty]
    return verb(**({name: GIVEN.get(name, "x") for name in needed} | given))


def routes() -> dict[str, Any]:
    return {f"{one.method} {one.path}": one for one in ROUTES}


def route_of(ask: Ask[Any]) -> str:
    """The first that it fits: those with fewer braces are more exact."""
    fits = [
        name
        for name, one in routes().items()
        if one.method == ask.method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one.path), ask.path)
    ]
    return min(fits, key=lambda name: name.count("{"), default=f"no route: {ask.method} {ask.path}")


def test_each_route_has_its_verb() -> None:
    served = {route_of(asked(verb)) for verb in VERBS.values()}
    assert served | OTHERWISE.keys() == routes().keys(), "add a verb, or say why there is none"
    assert not served & OTHERWISE.keys()


@each_verb
def test_each_verb_is_on_the_client(name: str) -> None:
    """`events` is carried out as a whole feed."""
    verb = VERBS[name]
    owner: type = Session if "code" in inspect.signature(verb).parameters else Client
    assert name == "events" or inspect.unwrap(getattr(owner, name)) is verb
    assert verb.__doc__


LOUD: dict[str, Any] = {
    **dict.fromkeys(("login", "text", "cursor", "client", "after"), "x"),
    **dict.fromkeys(("timeout_s", "limit", "before", "ttl_s"), 5),
    **dict.fromkeys(("fresh", "plain", "takeover", "dry_run"), True),
    **{name: ["demo"] for name in ("status", "clients", "labels", "kinds")},
}
"""For what may be left out."""
UNSAID = {"ticket": "in place of a token", "follow": "for bots that outlive a browser"}
"""Options that no verb sends."""


def test_each_option_of_a_route_can_be_said_and_no_other() -> None:
    said: dict[str, set[str]] = {}
    for verb in VERBS.values():
        left_out = {
            one.name for one in inspect.signature(verb).parameters.values() if one.default is not one.empty
        }
        sent = asked(verb, **{name: LOUD[name] for name in LOUD.keys() & left_out})
        options = said.setdefault(route_of(sent), set())
        options.update(sent.query)
        if sent.headers.get("Content-Type") == "application/json":
            assert isinstance(sent.body, bytes)
            options.update(json.loads(sent.body))
    for name, options in said.items():
        assert options == routes()[name].options.model_fields.keys() - UNSAID, name


def test_each_long_verb_tells_and_each_act_may_be_on_condition() -> None:
    for verb in VERBS.values():
        route = routes()[route_of(asked(verb))]
        parameters = inspect.signature(verb).parameters
        looks = verb.__name__.startswith(("check_", "try_"))
        assert ("told" in parameters) == (route.tells and not looks), verb.__name__
        acts = route.about is About.ONE and route.method != "GET" and not looks
        assert ("if_match" in parameters) <= acts, verb.__name__


def test_the_command_line_and_an_app_wait_long_enough() -> None:
    config = Config()
    longest = sum(config.deadlines.model_dump().values()) * config.learning.ceiling
    assert asked(verbs.connect, timeout_s=5.0).limit_s(PATIENCE_S) > longest + 5.0
    assert config.api.heartbeat_s * 2 < SILENT_S


@pytest.mark.parametrize(
    ("sent", "may"),
    [
        (verbs.show(DEMO), True),
        (verbs.connect(DEMO), True),
        (verbs.put_value(DEMO, "x", b""), True),
        (verbs.put_value(DEMO, "x", b"", only_new=True), False),
        (verbs.put_value(DEMO, "x", b"", if_match='"1"'), False),
        (verbs.delete_value(DEMO, "x"), False),
        (verbs.upload(DEMO, "x", io.BytesIO()), True),
        (verbs.export(DEMO, "x", io.BytesIO()), False),
        (verbs.connect(DEMO, fresh=True), False),
        (verbs.cleanup(DEMO), False),
        (verbs.undo(DEMO), False),
        (verbs.check_undo(DEMO), True),
        (verbs.restore(DEMO), False),
        (verbs.bring(DEMO, io.BytesIO()), False),
        (daemon.rotate_token("x"), False),
        (daemon.rotate_webhook("x"), False),
    ],
    ids=lambda one: one.target if isinstance(one, Ask) else "",
)
def test_what_may_be_sent_again(sent: Ask[Any], may: bool) -> None:
    assert sent.may_be_repeated is may


def test_a_text_is_no_list() -> None:
    for verb in VERBS.values():
        for name in inspect.signature(verb).parameters.keys() & {
            *("status", "clients", "labels", "kinds", "scopes", "messages")
        }:
            with pytest.raises(InvalidRequest, match="'demo' is a text"):
                asked(verb, **{name: "demo"})


def test_somebodys_text_stays_one_part_of_the_path() -> None:
    assert verbs.value(DEMO, "a/b?c#d e").path == "/v1/sessions/demo/values/a%2Fb%3Fc%23d%20e"
    assert daemon.list_sessions(text="a&b").target == "/v1/sessions?text=a%26b"


def test_what_was_answered_is_told_from_what_was_not() -> None:
    def answered(status: int, media: str, body: bytes) -> Any:
        return verbs.show(DEMO).result(Answer(status, {"content-type": media}, body), URL)

    problem = (
        b'{"code": "%s", "detail": "It was so.", "hint": "Do so.", "message": 1, "self": 2, "status": 409}'
    )
    with pytest.raises(NoPage, match=r"It was so\. Do so\.") as known:
        answered(409, "application/problem+json; charset=utf-8", problem % b"no_page")
    assert known.value.details == {"status": 409}
    with pytest.raises(Foreign) as foreign:
        answered(409, "application/problem+json", problem % b"of_tomorrow")
    assert foreign.value.code == "of_tomorrow"
    for status, media, body in (
        (200, "text/html", b"<h1>It works!</h1>"),
        (200, "application/json", b"{}"),
        (404, "text/html", b""),
        (302, "", b""),
        (500, "application/problem+json", b"[]"),
    ):
        with pytest.raises(NotWaguard, match=f"at {URL} is not this version of waguard"):
            answered(status, media, body)


# --- server-sent events -------------------------------------------------------------------------------------------

EVENT = EventView("5f-1", 1.0, "demo", "login.lost", {"why": "Damage: \u2028 ü"})
BEAT, READY = b": beat\nid: 5f-2\n\n", b'id: 5f-3\nevent: feed.ready\ndata: {"id": "5f-3"}\n\n'


@given(st.lists(st.sampled_from([EVENT, BEAT, READY]), max_size=6), st.data())
def test_frames_are_the_same_however_the_bytes_come(told: list[Any], data: st.DataObject) -> None:
    """As the daemon writes them, or with the line ends of a proxy."""
    sent = b"retry: 2000\n\n" + b"".join(
        one if isinstance(one, bytes) else sse.event(one.name, one, paths=True, place=one.id) for one in told
    )
    if data.draw(st.booleans()):
        sent = sent.replace(b"\n", b"\r\n")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    frames = Frames()
    found = [one for start, end in pairwise([0, *cuts, len(sent)]) for one in frames.feed(sent[start:end])]
    assert found[0] == Frame()
    assert [one.id for one in found[1:]] == [
        "5f-1" if one is EVENT else "5f-2" if one is BEAT else "5f-3" for one in told
    ]
    events = [happening(one, 7.0) for one in found if one.event]
    ready = EventView("5f-3", 7.0, None, "feed.ready", {"id": "5f-3"})
    assert events == [EVENT if one is EVENT else ready for one in told if one is not BEAT]


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        list(Frames().feed(bytes(MOST_BYTES + 1)))
    with pytest.raises(ValueError, match="utf-8"):
        list(Frames().feed(b"data: \xff\n\n"))
    with pytest.raises(ValueError, match="EventView"):
        happening(Frame("login.lost", "{}"), 0.0)
    with pytest.raises(ValueError, match="Expecting"):
        happening(Frame("feed.missed", ""), 0.0)
