"""What people see on terminals of every size: nothing that they have to type is cut, and trouble comes first."""

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from forty import LONG, forty
from rich.cells import cell_len
from rich.console import Console
from views import CONNECTED, DOWN, FAILED, SNAPSHOT

from waguard.cli import show, stats
from waguard.core.model import Login
from waguard.core.shown import NEWEST, DeadlineView, FailureView, SessionView, SnapshotView
from waguard.core.stats import Slow


def screen(width: int, **options: Any) -> Console:
    settings = {"width": width, "height": 24, "force_terminal": True, "color_system": None, **options}
    return Console(file=io.StringIO(), highlight=False, markup=False, emoji=False, _environ={}, **settings)


def shown(views: Sequence[SessionView], width: int, **options: Any) -> str:
    console = screen(width, **options)
    show.sessions(views, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


TOP = """\
40 sessions: 26 connected, 5 recovering, 3 failed, 2 awaiting_scan, 2 stopped,
1 logged_out, 1 starting

CLIENT                 STATUS         SINCE  TROUBLE
client-with-the-longest-code-that-there-may-be-xxxxxxxxxxxxxxxxx
                       failed         1 d    browser_failed: The browser ended.
                                             Run: waguard doctor
demo                   failed         20 s   browser_failed: The browser ended.
                                             Run: waguard doctor
restaurante-el-puerto  failed         3 min  deadline_exceeded: Stage open: the
                                             page was not usable within 45 s; it
                                             shows splash, app. Is the network
                                             up? If WhatsApp Web is just slow
                                             here, raise deadlines.open in the
                                             configuration.
clinica-norte          logged_out     2 h
hotel-sol              recovering     2 h    conflict, a person is needed:
                                             WhatsApp is in use in another
                                             browser
taller-12              recovering     40 s   page_looping, trying reload: it has
                                             not answered for 34 s; its renderer
                                             works without end
taller-13              recovering     41 s   offline, next try in 41 s:
                                             Socket.state=TIMEOUT;
                                             Stream.mode=OFFLINE
taller-14              recovering     42 s   offline, next try in 41 s:
                                             Socket.state=TIMEOUT;
                                             Stream.mode=OFFLINE
taller-15              recovering     43 s   offline, next try in 41 s:
                                             Socket.state=TIMEOUT;
                                             Stream.mode=OFFLINE
nuevo-1                awaiting_scan  15 s
nuevo-2                awaiting_scan  3 s
vuelve                 starting       2 s
shop-01                connected      1 h
"""
END = """\
shop-26                connected      1 d
cerrado                stopped        5 d
cerrado-2              stopped        5 d

Details of one: waguard status CODE
"""


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr("time.time", lambda: 1e9)
    return 1e9


def test_forty_sessions_with_trouble_in_eighty_columns(now: float) -> None:
    said = shown(forty(now), 80)
    assert said.startswith(TOP)
    assert said.endswith(END)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 200, 250])
def test_whatever_the_width_each_client_has_its_whole_code_and_its_state(now: float, width: int) -> None:
    views = forty(now)
    lines = shown(views, width).splitlines()
    assert all(len(line) <= width or line == LONG for line in lines)
    for view in views:
        (number,) = (one for one, line in enumerate(lines) if line.split()[:1] == [view.client])
        words = " ".join(lines[number : number + 2]).split()
        assert words[:2] == [view.client, view.status], lines[number]


@pytest.mark.parametrize("width", [40, 80, 132])
@pytest.mark.parametrize(
    "message",
    [
        "The page was not usable, and why that is takes more than a line or two to say, as it does here. "
        * 3,
        "Das Fenster lädt nicht: " + "页面没有加载完成请检查网络" * 8 + " e\u0301" * 50,
        "x" * 300,
    ],
    ids=["words", "wide", "one word"],
)
def test_trouble_is_wrapped_and_never_cut(message: str, width: int) -> None:
    failure = FailureView("browser_failed", message, "start", hint="Run: waguard doctor")
    view = replace(FAILED, failure=failure, finding=None, automatic_restarts=0)
    said = shown([view, replace(CONNECTED, client="demo2")], width)
    assert all(cell_len(line) <= width for line in said.splitlines())
    said = re.sub(r"(?m) +none( .*)?$", "", said)  # the columns behind it
    told = "".join(said[said.index("browser_failed:") :].split())
    assert told.startswith("".join(f"browser_failed:{message}Run:waguarddoctor".split()))


def test_what_there_is_room_for_is_shown_and_columns_of_nothing_are_not(now: float) -> None:
    heads = [shown(forty(now), width).splitlines() for width in (80, 120, 250)]
    narrow, wide, widest = (next(line for line in one if line.startswith("CLIENT")) for one in heads)
    assert narrow.split() == ["CLIENT", "STATUS", "SINCE", "TROUBLE"]
    assert wide.split()[4:] == ["NUMBER", "MEMORY", "RESTARTS"]
    assert widest.split()[4:] == ["NUMBER", "MEMORY", "RESTARTS", "LOGIN", "PROFILE", "PID"]
    assert "RESTARTS" not in shown([CONNECTED], 250)


def test_two_hundred_sessions_of_long_codes_are_aligned(now: float) -> None:
    views = [
        replace(view, client=f"{view.client}-{number}"[-64:]) for number in range(5) for view in forty(now)
    ]
    lines = shown(views, 80).splitlines()
    assert lines[0].startswith("200 sessions: 130 connected, ")
    at = next(line.index("STATUS") for line in lines if line.startswith("CLIENT"))
    assert {line[at - 2 : at] for line in lines[4:-2] if len(line) < 64} == {"  "}


def test_colours_only_where_they_are_wanted(now: float) -> None:
    assert "\x1b[" in shown(forty(now), 80, color_system="standard")
    plain = shown(forty(now), 80, color_system="standard", no_color=True)
    assert "\x1b[3" not in plain
    assert shown(forty(now), 80).isascii(), "what a terminal without UTF-8 cannot show"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_id_that_restore_wants_is_whole(width: int) -> None:
    views = [SnapshotView(**{**SNAPSHOT, "id": f"20260101T000000-{one:08x}"}) for one in range(3)]  # type: ignore[arg-type]
    console = screen(width)
    show.snapshots(views, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    for view in views:
        assert view.id in said.split()
    assert NEWEST not in said


def test_a_session_in_detail_says_only_what_there_is_to_say() -> None:
    for view, missing in (
        (DOWN, {"memory", "signs", "page", "browser", "number", "finding", "check"}),
        (replace(FAILED, login=Login.ON_DISK), {"memory", "signs", "page", "browser", "number"}),
    ):
        console = screen(60)
        show.session(view, console)
        said = console.file.getvalue()  # type: ignore[attr-defined]
        assert not missing & {line.split()[0] for line in said.splitlines()}
        assert max(map(len, said.splitlines())) <= 60


@pytest.mark.parametrize("width", [60, 80, 132])
def test_stats_cut_no_client_and_no_reason(width: int) -> None:
    why = "it takes 9.3 s and not 2.1: most begin with an empty or a restored profile, so with cold caches"
    console = screen(width)
    console.print(stats._slow([Slow(LONG, "open", 9300.0, 2100.0, why)]))
    console.print(stats._deadlines([DeadlineView(LONG, "prepare", 12.5, 10.0, why)]))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in said.splitlines())
    letters = Counter("".join(said.split()))
    assert letters == Counter("".join((LONG + why) * 2 + "open" + "prepare" + "12.5s").replace(" ", ""))
