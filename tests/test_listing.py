"""A list of sessions page by page: each comes once, in order."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from waguard.core.listing import page
from waguard.core.model import Link, Login, Process, Status, Wanted
from waguard.core.shown import SessionView


def view(client: str, status: Status, name: str | None = None) -> SessionView:
    empty: dict[str, Any] = dict.fromkeys(
        (
            "reason",
            "attempt",
            "qr",
            "profile",
            "snapshot",
            "check",
            "generation",
            "saved",
            "wid",
            "page_version",
        ),
        None,
    )
    rest: dict[str, Any] = dict.fromkeys(("browser", "failure", "finding", "next_try_s", "memory_mb"), None)
    return SessionView(
        **empty,
        **rest,
        client=client,
        status=status,
        wanted=Wanted.UP,
        process=Process.UP,
        link=Link.UNKNOWN,
        since=0.0,
        login=Login.NONE,
        push_name=name,
        signs=(),
        stages_ms={},
        automatic_restarts=0,
    )


VIEWS = st.lists(
    st.builds(
        view,
        st.from_regex(r"[a-c]{1,3}", fullmatch=True),
        st.sampled_from(Status),
        st.sampled_from([None, "Ana", "B"]),
    ),
    unique_by=lambda one: one.client,
)


@given(VIEWS, st.lists(st.sampled_from(Status)), st.sampled_from(["", "a", "AN", "bb"]), st.integers(1, 5))
def test_page_by_page_each_comes_once(
    sessions: list[SessionView], statuses: list[Status], text: str, limit: int
) -> None:
    whole = page(sessions, statuses, text, None, "")
    assert whole.next is None
    assert [one.client for one in whole.sessions] == sorted(
        one.client
        for one in sessions
        if (not statuses or one.status in statuses)
        and (text.casefold() in one.client or text.casefold() in (one.push_name or "").casefold())
    )
    found: list[SessionView] = []
    after = ""
    while True:
        part = page(sessions, statuses, text, limit, after)
        assert len(part.sessions) <= limit
        found += part.sessions
        if part.next is None:
            break
        after = part.next
    assert found == whole.sessions


def test_a_text_is_looked_for_in_the_code_the_number_and_the_name_alone() -> None:
    """A reason may have a path in it, which is shown to admins alone."""
    one = replace(view("a", Status.FAILED, "Ana"), reason="in /var/lib/waguard/a", wid="34600111222")
    assert [page([one], [], text, None, "").sessions for text in ("A", "600", "an")] == [[one]] * 3
    assert not page([one], [], "/var/lib", None, "").sessions


def test_a_page_ends_where_there_is_more() -> None:
    """What the property says, once for sure."""
    sessions = [view(code, Status.CONNECTED) for code in ("c", "a", "b")]
    first = page(sessions, [Status.CONNECTED], "", 2, "")
    assert ([one.client for one in first.sessions], first.next) == (["a", "b"], "b")
    assert page(sessions, [Status.FAILED], "", 2, "").sessions == []
