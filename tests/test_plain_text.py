"""Whatever a page, an archive or another program says leaves as text that harms nobody: by the log, a terminal, an answer."""

import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from harmful import harmful
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.text import Text
from typer.testing import CliRunner

from waguard.api.problems import response
from waguard.cli import app, edge
from waguard.cli.table import Column, table
from waguard.cli.terminal import Harmless
from waguard.config.sections import Log
from waguard.core.model import Alert
from waguard.core.plain_text import MOST, plain, plain_data, plain_json
from waguard.errors import BrowserFailed, NotFound
from waguard.observe import logs
from waguard.observe.alerts import Alerts
from waguard.observe.bus import Event
from waguard.observe.journal import entry, message

EVIL = "\x1b]0;title\x07 \x1b[2J \x9b31m \u202e \u2066 \ud800 \r \0 end"
SGR = re.compile(r"\x1b\[[0-9;]*m")
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=[]),
        st.sampled_from("\x1b\x9b\x07\r\0\u202e\u2066\u2028\ud800[]\n\t"),
    ),
    max_size=80,
)


def strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, one in value.items():
                yield from strings(key)
                yield from strings(one)
        case list():
            for one in value:
                yield from strings(one)


@pytest.fixture
def log_settings() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    for handler in logging.getLogger().handlers[:]:
        if type(handler).__module__ == "waguard.observe.logs":
            logging.getLogger().removeHandler(handler)


@given(text=TEXTS)
def test_nothing_harmful_is_left_and_what_is_harmless_stays(text: str) -> None:
    assert not harmful(plain(text))
    assert "\n" not in plain(text)
    assert plain(plain(text)) == plain(text)
    if not harmful(text):
        assert (
            plain(text, lines=True) == text
            or "\u200e" in text
            or "\u200f" in text
            or "\u061c" in text
            or "\ufeff" in text
        )


def test_what_is_long_is_cut_and_says_so() -> None:
    assert plain("a" * (MOST + 7)) == "a" * MOST + " ... (7 more characters)"
    assert plain("name\x1b[2J\n") == "name\\x1b[2J\\x0a"
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert json.dumps(plain_data(deep)).count("[") < 50


@given(text=TEXTS)
def test_json_keeps_its_meaning(text: str) -> None:
    said = plain_json(json.dumps({text: text}, ensure_ascii=False))
    assert not harmful(said)
    assert json.loads(said) == {text: text}


@pytest.mark.usefixtures("log_settings")
@pytest.mark.parametrize("form", ["json", "console"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_no_line_of_the_log_has_it(form: str, text: str) -> None:
    stream = io.StringIO()
    write = logs.configure(Log.model_validate({"format": form}), stream)
    write(Event("browser.failed", "error", None, {"stderr": [text], "title": text, "names": {text: text}}))
    logging.getLogger("foreign").error("said %s", text)
    said = stream.getvalue()
    assert said.count("browser.failed") == said.count("foreign") == 1
    assert not harmful(said)


@given(text=TEXTS)
def test_no_entry_of_the_journal_shows_it(text: str) -> None:
    event = {
        "event": "x",
        "level": "error",
        "stderr": text,
        "lines": f"a\n{text}\nb",
        "names": {text: [text]},
    }
    fields = entry(None, "", event)
    assert not harmful(message(event))
    assert plain_json(json.dumps(event, ensure_ascii=False)).encode() in fields


@given(text=TEXTS)
def test_no_answer_has_it(text: str) -> None:
    body = response(BrowserFailed(text, hint=text, stderr=[text], at={"name": text}), admin=True).body
    assert isinstance(body, bytes)
    assert not any(map(harmful, strings(json.loads(body))))


@given(text=TEXTS)
def test_no_alert_has_it(text: str) -> None:
    told: list[str] = []
    alerts = Alerts(lambda *_, **fields: told.append(fields["text"]))
    alerts.set(Alert.NO_ROOM, f"a{text}")
    assert not harmful(told[0] + alerts.raised()[0].text)


@pytest.mark.parametrize("terminal", [True, False])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_no_terminal_gets_it(terminal: bool, text: str) -> None:
    stream = io.StringIO()
    console = Harmless(
        file=stream,
        force_terminal=terminal,
        width=80,
        color_system="standard" if terminal else None,
        highlight=False,
        markup=False,
    )
    console.print(text, style="red")
    console.print(Text(text, "dim"))
    table([Column("NAME"), Column("TROUBLE", text=True)], [(text, Text(text))], console)
    assert not harmful(SGR.sub("", stream.getvalue()) if terminal else stream.getvalue())


def test_a_command_that_fails_prints_names_from_elsewhere_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAGUARD_SESSIONS__DIR", str(tmp_path))
    path = tmp_path / "foreign.zip"
    with zipfile.ZipFile(path, "w") as target:
        for top in ("\x1b[2Ja", "\x9b31mb"):
            for name in (
                "IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb/000003.log",
                "Local Storage/leveldb/000003.log",
            ):
                target.writestr(f"{top}/Default/{name}", b"x")
    done = CliRunner().invoke(app.app, ["import", "demo", str(path), "--dry-run"])
    assert done.exit_code == 1
    assert "several logins" in done.output
    assert not harmful(done.output)


def test_an_error_from_anywhere_prints_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    edge._tell("browser_failed", EVIL, EVIL, [EVIL], starts=False)
    said = capsys.readouterr().err
    assert not harmful(said)
    assert said.count("end") == 3


def test_what_the_tests_are_blind_to() -> None:
    assert len(harmful(EVIL)) == 9
    assert response(NotFound(EVIL), admin=True).status == 404


def test_what_is_nested_deeper_than_anything_of_ours_is_cut() -> None:
    deep: Any = "end"
    for _ in range(50):
        deep = [deep]
    text = repr(plain_data(deep))
    assert "end" not in text
    assert "..." in text
    assert plain_data({1: Path("a\x1b")}) == {1: "a\\x1b"}
