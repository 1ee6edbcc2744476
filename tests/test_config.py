"""A wrong configuration is refused with the line that says so; a right one is what the file and the environment say."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_configs import WRONG

from waguard.config import browser_flags
from waguard.config import load as loading
from waguard.config.load import Loaded, load
from waguard.config.sections import Config
from waguard.errors import ConfigError

SECRET = "the-secret-that-nobody-may-see"

Write = Callable[[str | bytes], Path]


@pytest.fixture(autouse=True)
def nothing_leaks() -> None:
    """Nothing is started here, and a look at the process table takes longer than any of these tests."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a config.toml; returns its path."""

    def writing(text: str | bytes) -> Path:
        path = tmp_path / "config.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return writing


def refusal(path: Path | None, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return str(caught.value)


# --- what is right --------------------------------------------------------------------------------------


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "SEARCHED", (Path("config.toml"),))
    assert load(environ={}) == Loaded(Config(), None, {}, ())


def test_the_first_file_of_those_searched_is_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("[api]\nport = 1234\n")
    monkeypatch.setattr(loading, "SEARCHED", (path.with_name("missing.toml"), path))
    loaded = load(environ={})
    assert (loaded.config.api.port, loaded.path) == (1234, path)


def test_the_environment_names_the_file_and_an_argument_wins(write: Write, tmp_path: Path) -> None:
    named = tmp_path / "named.toml"
    named.write_text("[api]\nport = 1111\n")
    environ = {"WAGUARD_CONFIG": str(named)}
    assert load(environ=environ).config.api.port == 1111
    assert load(write("[api]\nport = 2222\n"), environ).config.api.port == 2222


def test_origins_say_where_each_value_comes_from(write: Write) -> None:
    path = write('# ours\n[api]\nport = 1\n\n[log]\nlevel = "debug"\n')
    loaded = load(path, {"WAGUARD_LOG__LEVEL": "error"})
    assert loaded.origins["api.port"] == f"{path}:3"
    assert loaded.origins["log.level"] == "WAGUARD_LOG__LEVEL"
    assert loaded.config.log.level == "error"


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("SESSIONS__DIR", "/var/lib/x", Path("/var/lib/x")),
        ("SESSIONS__RETIRED_KEEP_HOURS", "0", 0.0),
        ("WHATSAPP__URL", "http://127.0.0.1:9/", "http://127.0.0.1:9/"),
        ("WHATSAPP__PROBE", "/etc/probe.js", Path("/etc/probe.js")),
        ("BROWSER__PATH", "/usr/bin/chromium", Path("/usr/bin/chromium")),
        ("BROWSER__EXTRA_FLAGS", '["--lang=es", "--mute-audio"]', ["--lang=es", "--mute-audio"]),
        ("BROWSER__USER_AGENT", "123", "123"),
        ("BROWSER__LANGUAGE", "es-MX", "es-MX"),
        ("BROWSER__CHROMIUM_SANDBOX", "false", False),
        ("SANDBOX__KIND", "plain", "plain"),
        ("LIMITS__MAX_SESSIONS", "7", 7),
        ("LIMITS__MAX_SESSIONS", "1", 1),
        ("DEADLINES__OPEN", "1.5", 1.5),
        ("DEADLINES__OPEN", "2", 2.0),
        ("API__CLIENTS", '["demo", "demo2"]', ["demo", "demo2"]),
        ("LOG__FORMAT", "json", "json"),
        ("log__format", "console", "console"),
    ],
)
def test_every_kind_of_key_can_be_set_by_the_environment(
    write: Write, name: str, raw: str, value: object
) -> None:
    loaded = load(write(""), {f"WAGUARD_{name}": raw, "PATH": "/usr/bin", "WAGUARD_LAUNCH": "x"})
    section, key = name.lower().split("__")
    assert getattr(getattr(loaded.config, section), key) == value
    assert loaded.origins[f"{section}.{key}"] == f"WAGUARD_{name}"


def test_secrets_can_be_set_by_the_environment(write: Write) -> None:
    environ = {
        "WAGUARD_API__ADMIN_TOKEN": "0123456789012345",
        "WAGUARD_API__CLIENT_TOKENS": '{demo = "demo-demo-demo-demo"}',
    }
    api = load(write(""), environ).config.api
    assert api.admin_token is not None
    assert api.admin_token.get_secret_value() == "0123456789012345"
    assert {code: token.get_secret_value() for code, token in api.client_tokens.items()} == {
        "demo": "demo-demo-demo-demo"
    }


def test_the_default_of_concurrent_starts_fits_every_machine(write: Write) -> None:
    Config.model_validate(Config().model_dump())
    assert load(write("[limits]\nmax_sessions = 1\n"), {}).config.limits.max_sessions == 1


# --- what is wrong: where, which key, what would be right --------------------------------------------------


@pytest.mark.parametrize(("text", "line", "key", "right"), WRONG, ids=[text for text, *_ in WRONG])
def test_wrong_in_the_file(write: Write, text: str, line: int, key: str, right: str) -> None:
    path = write(text)
    said = refusal(path)
    assert said.startswith(f"{path}:{line}")
    assert (f": {key}: " if key else ": ") in said
    assert right in said
    assert not said.endswith("..")
    assert "\n" not in said, "one problem, one line"


@pytest.mark.parametrize("flag", sorted(browser_flags._FORBIDDEN))
@pytest.mark.parametrize("value", ["", "=", "=1"])
def test_flags_that_would_undo_a_promise_are_refused_with_what_to_do_instead(
    write: Write, flag: str, value: str
) -> None:
    said = refusal(write(f'[browser]\nextra_flags = ["--mute-audio", "{flag}{value}"]\n'))
    assert f":2: browser.extra_flags: {flag} is not allowed here: {browser_flags._FORBIDDEN[flag]}." in said


@pytest.mark.parametrize(
    "flag",
    [
        "--proxy-server=http://crm:secret@127.0.0.1:3128",
        "--proxy-server=crm:secret@127.0.0.1:3128",
        "--proxy-server=https=http://crm:secret@127.0.0.1:3128",
        "--proxy-pac-url=https://crm:secret@proxy.example/proxy.pac",
    ],
)
def test_a_flag_with_a_password_is_refused_and_not_repeated(write: Write, flag: str) -> None:
    said = refusal(write(f'[browser]\nextra_flags = ["{flag}"]\n'))
    assert f"{flag.split('=', maxsplit=1)[0]} has a user and a password" in said
    assert "waguard settings set" in said
    assert "secret" not in said


def test_flags_that_are_no_list_are_refused_without_their_password() -> None:
    flag = "--proxy-server=http://crm:secret@127.0.0.1:3128"
    with pytest.raises(ConfigError) as caught:
        load(environ={"WAGUARD_BROWSER__EXTRA_FLAGS": flag, "WAGUARD_CONFIG": "/dev/null"})
    assert 'must be a list in brackets, like ["a", "b"]' in caught.value.message
    assert "secret" not in caught.value.message


def test_a_flag_with_quotes_inside_is_refused(write: Write) -> None:
    said = refusal(write("[browser]\nextra_flags = ['--proxy-server=\"http://127.0.0.1:3128\"']\n"))
    assert "--proxy-server has quotes in its value" in said


def test_flags_that_harm_nothing_are_taken(write: Write) -> None:
    harmless = ["--proxy-server=http://127.0.0.1:3128", "--disable-dev-shm-usage", "--crash-dumps-dir=/tmp"]
    path = write(f"[browser]\nextra_flags = {harmless}\n")
    assert load(path, environ={}).config.browser.extra_flags == harmless


def test_all_problems_are_told_at_once(write: Write) -> None:
    path = write('[api]\nport = "x"\nhots = "y"\n\n[log]\nlevel = 1\n')
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    problems = caught.value.details["problems"]
    assert [problem.partition(": ")[0] for problem in problems] == [f"{path}:2", f"{path}:3", f"{path}:6"]
    assert str(caught.value) == "\n".join(problems)


def test_windows_line_ends_and_odd_characters_do_not_shift_the_lines(write: Write) -> None:
    path = write('# \u2028 a line separator is no line\r\n[api]\r\nport = "x"\r\n')
    assert refusal(path).startswith(f"{path}:3: api.port: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[api\n", "not valid TOML"),
        (b"[api]\nport = 1\nport = 2\n", "not valid TOML"),
        (b"x = " + b"9" * 5000, "not valid TOML"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
        (b"\xff\xfe[\0a\0p\0i\0]\0", "not UTF-8 text"),
    ],
)
def test_not_toml(write: Write, text: bytes, said: str) -> None:
    path = write(text)
    assert refusal(path).startswith(f"{path}: {said}")


def test_bad_toml_names_the_line(write: Write) -> None:
    assert "at line 2" in refusal(write("[api]\nport = = 1\n"))


def test_a_file_that_is_named_must_be_readable(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert refusal(missing) == f"{missing}: cannot be read: No such file or directory."
    assert refusal(None, {"WAGUARD_CONFIG": str(missing)}).startswith(f"{missing}: cannot be read")
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory."


def test_what_files_of_variables_leave_is_no_part_of_a_value(write: Write) -> None:
    for raw, url in (
        ('"https://x/"', "https://x/"),
        ("'https://x/'", "https://x/"),
        ("https://x/\r", "https://x/"),
        ('"https://x/"\r', "https://x/"),
    ):
        assert load(write(""), {"WAGUARD_WHATSAPP__URL": raw}).config.whatsapp.url == url
    environ = {
        "WAGUARD_API__PORT": '"9000"\r',
        "WAGUARD_SESSIONS__DIR": "'/srv/wa'",
        "WAGUARD_API__CLIENTS": "'[\"demo\"]'",
        "WAGUARD_BROWSER__CHROMIUM_SANDBOX": '"false"',
        "WAGUARD_BROWSER__USER_AGENT": 'half a "quote"',
    }
    loaded = load(write(""), environ).config
    assert (loaded.api.port, loaded.sessions.dir, loaded.api.clients) == (9000, Path("/srv/wa"), ["demo"])
    assert (loaded.browser.chromium_sandbox, loaded.browser.user_agent) == (False, 'half a "quote"')
    path = write("[api]\nport = 9001\n")
    assert load(None, {"WAGUARD_CONFIG": f'"{path}"\r'}).config.api.port == 9001


def test_a_byte_order_mark_is_skipped_and_utf_16_is_named(write: Write) -> None:
    assert load(write(b"\xef\xbb\xbf[api]\r\nport = 9000\r\n"), {}).config.api.port == 9000
    assert refusal(write("[api]\n".encode("utf-16"))).endswith("not UTF-8 text but UTF-16: save it as UTF-8.")


@pytest.mark.parametrize("service", ["WAGUARD", "WAGUARD_API", "WAGUARD_LOG", "WAGUARD__API"])
def test_what_kubernetes_says_of_a_service_is_not_ours(write: Write, service: str) -> None:
    environ = {
        f"{service}_SERVICE_HOST": "10.96.0.10",
        f"{service}_SERVICE_PORT": "8717",
        f"{service}_SERVICE_PORT_HTTP": "8717",
        f"{service}_PORT": "tcp://10.96.0.10:8717",
        f"{service}_PORT_8717_TCP": "tcp://10.96.0.10:8717",
        f"{service}_PORT_8717_TCP_PROTO": "tcp",
        f"{service}_PORT_8717_TCP_PORT": "8717",
        f"{service}_PORT_8717_TCP_ADDR": "10.96.0.10",
    }
    assert load(write(""), environ).config == Config()
    assert "Did you mean 'WAGUARD_API__PORT'" in refusal(write(""), {"WAGUARD_API_PORT": "8717"})


def test_an_empty_name_of_the_file_is_not_no_name() -> None:
    assert refusal(None, {"WAGUARD_CONFIG": ""}) == "WAGUARD_CONFIG is empty: name a file, or do not set it."


@pytest.mark.parametrize(
    ("name", "raw", "right"),
    [
        ("WAGUARD_API__PORT", "http", "api.port: must be a valid integer, not 'http'"),
        ("WAGUARD_API__PORT", "", "api.port: must be a valid integer, not ''"),
        ("WAGUARD_API__PORT", "1\nx = 2", "api.port: must be a valid integer"),
        ("WAGUARD_API__PORT", "9" * 5000, "api.port: must be"),
        ("WAGUARD_DEADLINES__OPEN", "soon", "deadlines.open: must be a valid number, not 'soon'"),
        (
            "WAGUARD_BROWSER__EXTRA_FLAGS",
            "--lang=es",
            'browser.extra_flags: must be a list in brackets, like ["a", "b"], not',
        ),
        ("WAGUARD_BROWSER__CHROMIUM_SANDBOX", "no", "chromium_sandbox: must be true or false, not 'no'"),
        ("WAGUARD_SANDBOX__KIND", "docker", "sandbox.kind: must be 'auto', 'bubblewrap' or 'plain'"),
        (
            "WAGUARD_API__CLIENT_TOKENS",
            "demo",
            'api.client_tokens: must be a table in braces, like {a = "b"}',
        ),
        ("WAGUARD_API__CLIENT_TOKENS", '{demo = ""}', "api: client_tokens.demo is empty"),
        ("WAGUARD_API__ADMIN_TOKEN", "", "api: admin_token is empty"),
        ("WAGUARD_BROWSER__PATH", "", "browser.path: must not be empty"),
        ("WAGUARD_API__PROT", "1", "there is no key 'prot' in [api]. Did you mean 'port'?"),
        ("WAGUARD_APY__PORT", "1", "there is no section 'apy'. Did you mean 'api'?"),
        ("WAGUARD___PORT", "1", "there is no section ''. Known are: api, "),
        ("WAGUARD__API__PORT", "1", "there is no section '_api'. Did you mean 'api'?"),
        ("WAGUARD__API_PORT", "1", "two underscores. Did you mean 'WAGUARD_API__PORT'?"),
        ("WAGUARD_API_PORT", "1", "two underscores. Did you mean 'WAGUARD_API__PORT'?"),
        ("WAGUARD_RESTART__BASE_S", "100", "restart: base_s = 100 must not be larger than max_s = 60"),
        ("WAGUARD_PAGE__UNKNOWN_AFTER", "100.5", "page.unknown_after: must be a valid integer, not 100.5"),
        ("WAGUARD_RECYCLE__SOFT_MEMORY_MB", "5000", "recycle: soft_memory_mb must not be larger than"),
    ],
)
def test_wrong_in_the_environment(write: Write, name: str, raw: str, right: str) -> None:
    """Every error names the variable, even where the file has the section too."""
    path = write("[limits]\nmax_sessions = 9\n\n[api]\nallowed_hosts = []\n")
    said = refusal(path, {name: raw})
    assert said.startswith(name)
    assert right in said


def test_a_combination_of_file_and_environment_names_both(write: Write) -> None:
    path = write("[limits]\nmax_sessions = 2\n")
    said = refusal(path, {"WAGUARD_LIMITS__CONCURRENT_STARTS": "3"})
    assert said.startswith(f"{path}:2, WAGUARD_LIMITS__CONCURRENT_STARTS: ")


# --- secrets ------------------------------------------------------------------------------------------------

LEAKS = [
    f'[api]\nadmin_token = "{SECRET[:15]}"\n',
    f'[api]\nadmin_token = "{SECRET}"\nport = "x"\n',
    f'[api]\nadmin_token = ["{SECRET}"]\n',
    f'[[api]]\nadmin_token = "{SECRET}"\n',
    f'[api]\nadmin_token = "{SECRET}"\nclient_tokens = {{demo = "{SECRET}"}}\n',
    f'[api]\nclient_tokens = "{SECRET}"\n',
    f'[api]\nclient_tokens = ["{SECRET}"]\n',
    f'[api.client_tokens.demo]\nx = "{SECRET}"\n',
    f'[api.client_tokens]\n"a b" = "{SECRET}"\n',
    f'[apy]\nadmin_token = "{SECRET}"\n',
    f'[api]\nadmin_tokn = "{SECRET}"\n',
    f'[log]\nadmin_token = "{SECRET}"\n',
    f'admin_token = "{SECRET}"\n',
    f'log = [{{admin_token = "{SECRET}"}}]\n',
    f"[api]\nadmin_token = {SECRET}\n",
    f'[api]\nadmin_token = "{SECRET}\n',
]


@pytest.mark.parametrize("text", LEAKS)
def test_secrets_are_in_no_error(write: Write, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(text), {})
    for shown in (str(caught.value), repr(caught.value), repr(caught.value.details)):
        assert SECRET[:15] not in shown


@pytest.mark.parametrize("name", ["ADMIN_TOKEN", "CLIENT_TOKENS"])
def test_secrets_of_the_environment_are_in_no_error(write: Write, name: str) -> None:
    raw = SECRET[:15] if name == "ADMIN_TOKEN" else SECRET
    assert SECRET[:15] not in refusal(write(""), {f"WAGUARD_API__{name}": raw})


def test_secrets_are_not_shown_by_a_loaded_configuration(write: Write) -> None:
    path = write(f'[api]\nadmin_token = "{SECRET}1"\nclient_tokens = {{demo = "{SECRET}2"}}\n')
    loaded = load(path, {})
    assert loaded.config.api.client_tokens["demo"].get_secret_value() == SECRET + "2"
    for shown in (
        str(loaded),
        repr(loaded),
        str(loaded.config.model_dump()),
        loaded.config.model_dump_json(),
    ):
        assert SECRET not in shown


# --- anything at all ------------------------------------------------------------------------------------------


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return json.dumps(value)
        case _:
            return str(value)


_SECTIONS = sorted(Config.model_fields)
_KEYS = sorted({k for f in Config.model_fields.values() for k in f.annotation.model_fields})  # type: ignore[union-attr]  # all are models
_scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["auto", "plain", "demo", "https://x/", "http://[", "--x", "127.0.0.1", "1979-05-27"]),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=5) | st.sampled_from(_KEYS), inner, max_size=3),
    ),
    max_leaves=6,
)
_sections = st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=8), _values, max_size=4)
_tables = st.dictionaries(st.sampled_from(_SECTIONS) | st.text(max_size=8), _sections | _values, max_size=4)
_names = st.one_of(
    st.builds("WAGUARD_{}__{}".format, st.sampled_from(_SECTIONS), st.sampled_from(_KEYS)),
    st.builds("WAGUARD_{}".format, st.text(max_size=12)).filter(lambda name: name != "WAGUARD_CONFIG"),
)


def _loads_or_says_why(path: Path, environ: Mapping[str, str]) -> str:
    """What is shown of it either way; any other error is the test's."""
    try:
        return repr(load(path, environ))
    except ConfigError as error:
        return f"{error}{error!r}{error.details}"


brief = settings(max_examples=50)


@brief
@given(table=_tables, environ=st.dictionaries(_names, st.text(max_size=12), max_size=2))
def test_any_table_is_loaded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], environ: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    lines = []
    for name, section in table.items():
        if isinstance(section, dict):
            lines += [f"[{json.dumps(name)}]", *(f"{json.dumps(k)} = {_toml(v)}" for k, v in section.items())]
        else:
            lines.insert(0, f"{json.dumps(name)} = {_toml(section)}")
    path.write_text("\n".join(lines), encoding="utf-8")
    assert _loads_or_says_why(path, environ)


@brief
@given(text=st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_loaded_or_refused(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.toml"
    path.write_bytes(text)
    assert _loads_or_says_why(path, {})


@brief
@given(value=_values, key=st.sampled_from(_KEYS), section=st.sampled_from(_SECTIONS))
def test_whatever_is_wrong_the_secret_is_not_told(
    tmp_path_factory: pytest.TempPathFactory, value: object, key: str, section: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "secret.toml"
    lines = [f"{section}.{key} = {_toml(value)}", f'api.admin_token = "{SECRET}"']
    path.write_text("\n".join(lines), encoding="utf-8")
    assert SECRET not in _loads_or_says_why(path, {})
