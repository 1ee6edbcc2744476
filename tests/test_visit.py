"""The visit of a page: as transcripts, and over any run of events. What does not match prints its difference."""

from collections.abc import Iterator, Sequence
from difflib import ndiff
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.session import visit as v
from waguard.core.session.visit import TABLE, Place, Visit, decide


def play(transcript: str, *happened: v.Event) -> Visit:
    """Each line is what comes of one event: where the page is, and whether it is news."""
    visit, lines = Visit(), []
    for event in happened:
        visit, news = decide(visit, event)
        lines.append(f"{type(event).__name__} -> {visit.place} {visit.step}{' news' if news else ''}")
    expected = [line.strip() for line in transcript.strip().splitlines()]
    assert lines == expected, "\n" + "\n".join(ndiff(expected, lines))
    return visit


def test_a_page_that_crashes_is_news_and_one_that_we_have_ended_is_none_once() -> None:
    play(
        """
        Went -> going 0
        Arrived -> there 0
        RendererGone -> there 0 news
        RenewalBegun -> renewing 0
        RendererGone -> reloading 0
        ReloadOver -> there 3
        RendererGone -> there 3 news
        RenewalBegun -> renewing 3
        ReloadOver -> settling 4
        RendererGone -> there 4
        RendererGone -> there 4 news
        """,
        v.Went(),
        v.Arrived(),
        v.RendererGone(),
        v.RenewalBegun(3),
        v.RendererGone(),
        v.ReloadOver(3),
        v.RendererGone(),
        v.RenewalBegun(4),
        v.ReloadOver(4),
        v.RendererGone(),
        v.RendererGone(),
    )


def test_a_renderer_that_never_reports_its_end_excuses_no_later_one() -> None:
    play(
        """
        RenewalBegun -> renewing 0
        ReloadOver -> settling 1
        PageShown -> there 1
        RendererGone -> there 1 news
        """,
        v.RenewalBegun(1),
        v.ReloadOver(1),
        v.PageShown(),
        v.RendererGone(),
    )


def test_a_reload_takes_the_place_of_the_first_navigation_and_of_one_before() -> None:
    visit = play(
        """
        Went -> going 0
        ReloadBegun -> reloading 0
        Arrived -> reloading 0
        ReloadBegun -> reloading 0
        ReloadOver -> reloading 1
        ReloadOver -> there 2
        """,
        v.Went(),
        v.ReloadBegun(1),
        v.Arrived(),
        v.ReloadBegun(2),
        v.ReloadOver(1),
        v.ReloadOver(2),
    )
    assert [visit.left(step) for step in (0, 1, 2)] == [True, True, False]


def test_an_address_that_says_logged_out_is_remembered_until_somebody_has_scanned() -> None:
    visit = play(
        """
        LogoutSeen -> there 0 news
        LogoutSeen -> there 0
        ReloadBegun -> reloading 0
        ReloadOver -> there 1
        """,
        v.LogoutSeen(),
        v.LogoutSeen(),
        v.ReloadBegun(1),
        v.ReloadOver(1),
    )
    assert visit.logged_out
    assert not decide(visit, v.LoginTaken())[0].logged_out


def test_why_there_was_no_way_is_kept_for_people() -> None:
    assert decide(Visit(), v.NoWay("net::ERR_NAME_NOT_RESOLVED"))[0].no_way == "net::ERR_NAME_NOT_RESOLVED"


def test_a_transcript_that_does_not_match_prints_its_difference() -> None:
    with pytest.raises(AssertionError, match=r"(?s)- Went -> there 0.*\+ Went -> going 0"):
        play("Went -> there 0", v.Went())


def test_every_pair_has_a_rule() -> None:
    assert set(TABLE) == set(product(Place, v.Event.__args__))


_kinds: st.SearchStrategy[type[v.Event]] = st.sampled_from(
    (
        v.ReloadBegun,
        v.RenewalBegun,
        v.ReloadOver,
        v.Arrived,
        v.RendererGone,
        v.PageShown,
        v.LogoutSeen,
        v.LoginTaken,
    )
)


@st.composite
def _runs(draw: st.DrawFn) -> Sequence[v.Event]:
    """Reloads are numbered as they begin; each is over once, some of them late."""
    run: list[v.Event] = [v.Went()]
    under_way: list[int] = []
    for step, kind in enumerate(draw(st.lists(_kinds, max_size=20)), 1):
        if kind is v.ReloadBegun or kind is v.RenewalBegun:
            run.append(kind(step))
            under_way.append(step)
        elif kind is not v.ReloadOver:
            run.append(kind())  # type: ignore[call-arg]  # those left need nothing
        elif under_way:
            run.append(v.ReloadOver(under_way.pop(draw(st.integers(0, len(under_way) - 1)))))
    return [*run, *map(v.ReloadOver, under_way), v.Arrived()]


def steps_of(run: Sequence[v.Event]) -> Iterator[tuple[Visit, v.Event, Visit, bool]]:
    visit = Visit()
    for event in run:
        before = visit
        visit, news = decide(before, event)
        yield before, event, visit, news


@given(_runs())
def test_a_page_that_is_left_never_counts_again_and_each_navigation_ends(run: Sequence[v.Event]) -> None:
    visit = Visit()
    for before, _, visit, _ in steps_of(run):
        assert visit.step >= before.step
        assert all(visit.left(step) for step in range(visit.step))
    assert not visit.away


@given(_runs())
def test_one_renewal_excuses_at_most_one_crash(run: Sequence[v.Event]) -> None:
    excused = 0
    for _, event, _, news in steps_of(run):
        excused += isinstance(event, v.RenewalBegun)
        if isinstance(event, v.RendererGone) and not news:
            excused -= 1
        assert excused >= 0
