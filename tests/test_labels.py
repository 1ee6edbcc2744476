"""Labels: what one is, whom a token for one lets see whom, and what is chosen by it."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
import views
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.access import About, Caller, Scope, Secret, Token, digest
from waguard.core.feed import Wish
from waguard.core.labels import LABEL, Priority, check_label
from waguard.core.listing import page
from waguard.core.model import ClientCode
from waguard.errors import Forbidden

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
WORDS = st.sampled_from(["sales", "vip", "team=north"])
LABELS = st.dictionaries(st.sampled_from([DEMO, DEMO2]), st.frozensets(WORDS))


@given(st.from_regex(rf"\A{LABEL}\Z"))
def test_a_label_is_itself(text: str) -> None:
    assert check_label(text) == text


@pytest.mark.parametrize(
    "text", ["", "Sales", "sales ", "-x", "a=b=c", "a=", "=b", "sales\n", "é", "*", "a,b", "x" * 64]
)
def test_what_is_no_label_gets_a_clear_answer(text: str) -> None:
    with pytest.raises(ValueError, match="is not a label: write a word like sales"):
        check_label(text)


def test_who_has_a_higher_priority_is_first() -> None:
    assert sorted(Priority, key=lambda one: one.rank) == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


@given(LABELS, st.frozensets(WORDS), st.frozensets(st.sampled_from([DEMO])), st.sampled_from([DEMO, DEMO2]))
def test_a_token_for_a_label_is_for_whoever_has_it_now_and_for_nobody_else(
    has: Mapping[str, Collection[str]],
    labels: frozenset[str],
    clients: frozenset[ClientCode],
    code: ClientCode,
) -> None:
    token = Token(
        "id",
        "x",
        (Scope.READ,),
        tuple(clients),
        (Secret(digest("s")),),
        0.0,
        "",
        None,
        None,
        labels=tuple(labels),
    )
    now: dict[str, Collection[str]] = dict(has)
    caller = token.admit("s", 1.0, lambda one: now.get(one, ()))
    may = code in clients or bool(labels & frozenset(has.get(code, ())))
    assert caller.may_see(code) is may
    if may:
        caller.check(Scope.READ, About.ONE, code)
    else:
        with pytest.raises(Forbidden):
            caller.check(Scope.READ, About.ONE, code)
    with pytest.raises(Forbidden):
        caller.check(Scope.READ, About.EVERY, None)
    now.clear()
    assert caller.may_see(code) is (code in clients)
    assert caller.client == (DEMO if clients and not labels else None), "whose label it is, nobody can say"


@given(LABELS, st.frozensets(WORDS), st.sampled_from(["", DEMO, DEMO2]))
def test_the_feed_chooses_by_label(
    has: Mapping[str, Collection[str]], labels: frozenset[str], client: str
) -> None:
    caller = Caller(frozenset({Scope.READ}), None)
    wish = Wish.of(caller, [], [], labels, lambda one: has.get(one, ()))
    wanted = bool(labels & frozenset(has.get(client, ()))) if client else False
    assert wish.wants(client, "session.changed") is (wanted or not labels)


def test_the_list_chooses_by_label() -> None:
    mine = replace(views.DOWN, labels=("sales", "vip"))
    found = page([mine, replace(views.DOWN, client="demo2")], [], "", None, "", ["vip", "other"])
    assert found.sessions == [mine]
    assert len(page([mine], [], "", None, "").sessions) == 1
