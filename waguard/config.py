"""The configuration: `config.toml`, then the environment, into models that refuse what they do not know.

Order: built-in defaults, the file, ``WAGUARD_<SECTION>__<KEY>``. Every error names the file and line (or the
variable), the key, and what would be right. `tomli` is imported here and nowhere else.
"""

import codecs
import difflib
import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import tomli
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from waguard.core.health import SUSPECTED_S, Fault
from waguard.core.model import client_code
from waguard.errors import ConfigError, InvalidClientCode
from waguard.schedule import Rule

ENV_PREFIX = "WAGUARD_"
ENV_FILE = "WAGUARD_CONFIG"
SHORTEST_TOKEN = 16
SEARCHED = (Path("config.toml"), Path("/etc/waguard/config.toml"))

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
AnyPath = Annotated[Path, Field(strict=False)]


def token_problem(token: str) -> str:
    """What keeps a text from being a token: an empty one would let in whoever sends none. Empty if nothing does."""
    if len(token) < SHORTEST_TOKEN:
        return f"must have at least {SHORTEST_TOKEN} characters"
    return "" if token.isprintable() and " " not in token else "must have no spaces or control characters"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @field_validator("*")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        """No text of ours holds control characters; a NUL would only be refused by the kernel, at the first start."""
        for text in value if isinstance(value, list | dict) else [value]:
            if isinstance(text, str | Path) and re.search(r"[\x00-\x1f\x7f]", str(text)):
                raise ValueError("must not contain control characters")
            if isinstance(text, Path) and text == Path():
                raise ValueError("must not be empty")
        return value


class Sessions(_Section):
    dir: AnyPath = Path("sessions")
    """Profiles, the registry and the tokens live below it; one daemon at a time owns it."""
    retired_keep_hours: Annotated[float, Field(ge=0, le=24 * 365)] = 168.0
    """A retired profile is deleted this long after its cleanup; 0 deletes it in the background at once."""

    quota_mb: Annotated[int, Field(ge=0)] = 0
    """What all of it may take; 0 sets no limit."""


class Profile(_Section):
    at_rest: Literal["plain", "sealed"] = "plain"
    """sealed: a stopped session leaves only the encrypted form of its login on disk."""
    runtime_dir: AnyPath | None = None
    """Where the plain form is while a browser runs, a tmpfs; by default below ``sessions.dir``."""
    cache_limit_mb: Annotated[int, Field(ge=0)] = 300
    """Caches of a stopped profile that take more are dropped; 0 sets no limit."""


class Backup(_Section):
    key_file: AnyPath | None = None
    """By default the systemd credential ``waguard.keys``, else ``.backup.keys`` below ``sessions.dir``."""
    without_old_keys: bool = False
    """Go on with a new key though snapshots were sealed with keys that are not there any more: nobody can open those again."""
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 3
    keep_daily: Annotated[int, Field(ge=0, le=1000)] = 7
    keep_weekly: Annotated[int, Field(ge=0, le=1000)] = 4
    keep_monthly: Annotated[int, Field(ge=0, le=1000)] = 3
    settle_s: Seconds = 60.0
    """How long a new login has to reach the disk before its first snapshot."""
    max_import_mb: Annotated[int, Field(ge=1)] = 2048


class WhatsApp(_Section):
    url: str = "https://web.whatsapp.com/"
    probe: AnyPath | None = None
    """A file that replaces the built-in `probe.js`, to follow a change of the page without a release."""

    @field_validator("url")
    @classmethod
    def _http(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ValueError(f"must be an http:// or https:// address: {error}") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
            raise ValueError("must be an http:// or https:// address without credentials")
        return url


# Flags that would undo what waguard promises; the text says what to do instead.
_FORBIDDEN_FLAGS = {
    "--no-sandbox": "set browser.chromium_sandbox = false instead",
    "--disable-setuid-sandbox": "set browser.chromium_sandbox = false instead",
    "--remote-debugging-port": "it would let every local user drive the client's WhatsApp",
    "--remote-debugging-address": "it would let every local user drive the client's WhatsApp",
    "--remote-debugging-pipe": "waguard sets it",
    "--user-data-dir": "waguard sets it, one per client",
    "--user-agent": "set browser.user_agent instead, which keeps the client hints in step",
    "--headless": "waguard sets it where the binary needs it",
    **dict.fromkeys(
        ("--incognito", "--guest", "--bwsi"), "what is scanned in it is forgotten when the browser ends"
    ),
    **dict.fromkeys(
        ("--disable-local-storage", "--disable-databases"), "that is where WhatsApp Web keeps the login"
    ),
    "--profile-directory": "the login is checked, saved and restored where the browser keeps it by itself",
    "--disk-cache-dir": "a cache belongs to one client's profile; its size is limited there",
    "--single-process": "a page would run in the browser's own process, without a sandbox, and end it when it crashes",
    **dict.fromkeys(
        (
            "--no-zygote",
            "--no-zygote-sandbox",
            "--disable-namespace-sandbox",
            "--disable-seccomp-filter-sandbox",
            "--disable-gpu-sandbox",
        ),
        "Chromium's own sandbox is made with it; set browser.chromium_sandbox = false to do without",
    ),
    "--disable-web-security": "whatever else the page loads could read the client's WhatsApp",
    "--disable-crashpad-for-testing": "without crash handlers a full Chromium's network service dies at each start",
    **dict.fromkeys(
        ("--dump-dom", "--screenshot", "--print-to-pdf", "--version", "--help"),
        "the browser would do that and end",
    ),
    "--no-startup-window": "there would be no page",
    "--type": "the browser gives it to processes of its own",
}
"""Each with its reason: what undoes a promise, keeps no login, or leaves no page."""
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
"""User and password in a URL."""


class Browser(_Section):
    path: AnyPath | None = None
    """The browser to run; by default the first of headless-shell, Chromium, Chrome that is installed."""
    extra_flags: list[str] = []
    user: str = ""
    """The unprivileged user that browsers run as when the daemon is root; by default waguard, else an id that nobody has."""
    user_agent: str = ""
    """By default the browser's own without the word Headless."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en-US"
    chromium_sandbox: bool = True
    ca_file: AnyPath | None = None
    """PEM: certificate authorities that the browser trusts beside its own; see `browser.authorities`."""

    @field_validator("extra_flags")
    @classmethod
    def _flags(cls, flags: list[str]) -> list[str]:
        for flag in flags:
            name = flag.split("=", 1)[0]
            if not re.fullmatch(r"--[a-z0-9-]+", name):
                raise ValueError(f"{flag!r} is not a command-line flag; write --name or --name=value")
            if name in _FORBIDDEN_FLAGS:
                raise ValueError(f"{name} is not allowed here: {_FORBIDDEN_FLAGS[name]}")
            value = flag.partition("=")[2]
            if value[:1] in {'"', "'"} or value[-1:] in {'"', "'"}:
                raise ValueError(
                    f"{name} has quotes in its value, and there is no shell here to take them away"
                )
            if _CREDENTIALS.search(value) or (name == "--proxy-server" and "@" in value):
                raise ValueError(
                    f"{name} has a user and a password: a browser takes none here, and everybody on this machine could read "
                    "them on its command line. Use a proxy that asks for none, or one of your own on loopback that adds them"
                )
        return flags


class Sandbox(_Section):
    kind: Literal["auto", "bubblewrap", "plain"] = "auto"
    """auto takes bubblewrap where it works and falls back to plain; bubblewrap refuses to start without it."""
    connect_ports: list[Annotated[int, Field(ge=1, le=65_535)]] = [53, 443]
    """TCP ports that a browser may connect to, beside that of whatsapp.url: not the control port, and not 80, where clouds have
    their metadata services. Empty: to all. It may listen on none."""


class Limits(_Section):
    concurrent_starts: Annotated[int, Field(ge=1, le=64)] = min(64, max(2, os.cpu_count() or 2))
    max_sessions: Annotated[int, Field(ge=1, le=10_000)] = 500
    session_memory_mb: Annotated[int, Field(ge=0)] = 300
    """Free memory one more session must find, above the reserve."""
    reserve_memory_mb: Annotated[int, Field(ge=0)] = 256
    memory_pressure: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 20.0
    """Percent of time in which nothing gets on for want of memory; with more no session starts. 0 does not look."""
    reserve_disk_mb: Annotated[int, Field(ge=0)] = 256


class Cgroup(_Section):
    """Where a service manager has delegated a cgroup to the daemon: see `sandbox.cgroup`."""

    enabled: bool = True
    memory_max_mb: Annotated[int, Field(ge=0)] = 4096
    """More than this one browser does not get; the kernel then ends a process of it. 0 sets no limit."""
    pids_max: Annotated[int, Field(ge=0)] = 4096
    """Processes and threads of one browser. 0 sets no limit."""


class Schedule(_Section):
    """When the daemon does what by itself: an interval (``6h``), a cron expression (``30 3 * * *``), or ``never``."""

    reap: str = "1h"
    backup: str = "1d"
    jitter_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 300.0

    @field_validator("reap", "backup")
    @classmethod
    def _rule(cls, text: str) -> str:
        Rule.parse(text)
        return text


class Deadlines(_Section):
    """Seconds; one per stage, and the name is the stage's."""

    admit: Seconds = 30.0
    prepare: Seconds = 10.0
    start: Seconds = 15.0
    open: Seconds = 45.0
    close: Seconds = 5.0
    kill: Seconds = 10.0
    restore: Seconds = 60.0
    backup: Seconds = 300.0
    scan: Seconds = 120.0
    """How long a caller of ``connect?wait=connected`` waits for the phone by default."""


class Restart(_Section):
    """What follows when a browser ends by itself: full-jitter exponential backoff inside a budget."""

    budget: Annotated[int, Field(ge=0, le=100)] = 5
    window_s: Seconds = 600.0
    base_s: Seconds = 1.0
    max_s: Seconds = 60.0
    cooldown_s: Seconds = 900.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.base_s > self.max_s:
            raise ValueError(f"base_s = {self.base_s:g} must not be larger than max_s = {self.max_s:g}")
        return self


class Probes(_Section):
    """Seconds between two looks of each kind; `Page` has those at the page."""

    process_s: Seconds = 5.0
    browser_s: Seconds = 15.0
    network_s: Seconds = 20.0
    gpu_s: Seconds = 30.0
    memory_s: Seconds = 60.0
    answer_s: Seconds = 5.0
    """Deadline of one look."""


class Health(_Section):
    """From when on something is wrong, and what may be done about it."""

    stopped_s: Seconds = 3.0
    hung_s: Seconds = 10.0
    blocked_s: Seconds = 10.0
    busy_s: Seconds = 45.0
    offline_s: Seconds = 60.0
    sync_s: Seconds = 120.0
    unpaired_s: Seconds = 5.0
    dialog_s: Seconds = 10.0
    qr_s: Seconds = 75.0
    verify_s: Seconds = 10.0
    relapse_s: Seconds = 120.0
    fresh: bool = False
    """Whether an empty profile is a remedy, which costs a scan, where nothing else is left."""

    def patience(self) -> Mapping[Fault, float]:
        """How long what a probe complains of may last until it is found; of the others the probe itself knows."""
        hung = (Fault.BROWSER_HUNG, Fault.NETWORK_HUNG, Fault.GPU_HUNG)
        named = {
            Fault.PROCESS_STOPPED: self.stopped_s,
            Fault.UNPAIRED: self.unpaired_s,
            Fault.DIALOG_OPEN: self.dialog_s,
        }
        suspected = {fault: min(limit, SUSPECTED_S[fault]) for fault, limit in self.treated().items()}
        return named | dict.fromkeys(hung, self.hung_s) | suspected

    def treated(self) -> Mapping[Fault, float]:
        """After how long something is done about what may end by itself, and is found before."""
        return {Fault.OFFLINE: self.offline_s, Fault.SYNC_STUCK: self.sync_s}


class Recycle(_Section):
    """When a browser that is well is closed and started again, in the client's quiet hour."""

    soft_memory_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 900.0
    hard_memory_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2000.0
    max_age_h: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 336.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.hard_memory_mb and self.soft_memory_mb > self.hard_memory_mb:
            raise ValueError("soft_memory_mb must not be larger than hard_memory_mb")
        return self


class History(_Section):
    keep_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 90.0
    """What is older is deleted; 0 keeps no history at all."""


class Learning(_Section):
    """What is done with the history: see `core.learning`."""

    enabled: bool = True
    floor: Annotated[float, Field(gt=0, le=1)] = 0.25
    ceiling: Annotated[float, Field(ge=1, le=100)] = 3.0


class Page(_Section):
    poll_loading_s: Seconds = 0.05
    poll_s: Seconds = 1.0
    read_s: Seconds = 5.0
    """Deadline of one look at the page."""
    unknown_after: Annotated[int, Field(ge=1, le=100)] = 6
    """So many looks in a row that tell nothing, and the link is unknown."""


class Api(_Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8717
    """0 takes a free one; the daemon's ``daemon.ready`` log line says which."""
    allowed_hosts: list[str] = []
    """Names besides localhost, 127.0.0.1 and [::1] that a Host header may carry (a reverse proxy's)."""
    clients: list[str] = []
    """Client codes that get a token of their own at the next start."""
    admin_token: SecretStr | None = None
    client_tokens: dict[str, SecretStr] = {}
    max_body_kb: Annotated[int, Field(ge=1, le=10_240)] = 64
    request_s: Seconds = 20.0
    """How long a connection may be without a whole header, and a body without its next piece."""

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", host):
                raise ValueError(f"{host!r} is not a host name: write it without scheme and port")
        return hosts

    @field_validator("host")
    @classmethod
    def _loopback(cls, host: str) -> str:
        if host != "localhost":
            try:
                address = ipaddress.ip_address(host)
            except ValueError:
                raise ValueError('must be an address, for example "127.0.0.1"') from None
            if not address.is_loopback:
                raise ValueError(
                    "must be a loopback address: put a reverse proxy with TLS in front for others"
                )
        return host

    @field_validator("clients", "client_tokens")
    @classmethod
    def _codes(cls, codes: list[str] | dict[str, SecretStr]) -> list[str] | dict[str, SecretStr]:
        for code in codes:
            try:
                client_code(code)
            except InvalidClientCode as error:
                raise ValueError(str(error)) from None
        return codes

    @model_validator(mode="after")
    def _tokens(self) -> Self:
        named = {"admin_token": self.admin_token} if self.admin_token is not None else {}
        named |= {f"client_tokens.{code}": token for code, token in self.client_tokens.items()}
        tokens = {name: token.get_secret_value() for name, token in named.items()}
        for name, token in tokens.items():
            if why := token_problem(token):
                raise ValueError(f"{name} {'is empty: it ' if not token else ''}{why}")
        if len(set(tokens.values())) != len(tokens):
            raise ValueError("admin_token and client_tokens must all differ")
        return self


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console", "journal"] = "auto"
    """auto: entries with fields where stderr is systemd's journal, readable on a terminal, one JSON object a line elsewhere."""


class Config(_Section):
    sessions: Sessions = Sessions()
    profile: Profile = Profile()
    backup: Backup = Backup()
    whatsapp: WhatsApp = WhatsApp()
    browser: Browser = Browser()
    sandbox: Sandbox = Sandbox()
    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    cgroup: Cgroup = Cgroup()
    deadlines: Deadlines = Deadlines()
    restart: Restart = Restart()
    history: History = History()
    learning: Learning = Learning()
    page: Page = Page()
    probes: Probes = Probes()
    health: Health = Health()
    recycle: Recycle = Recycle()
    api: Api = Api()
    log: Log = Log()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        limits = self.limits
        set_here = "concurrent_starts" in limits.model_fields_set  # a default that is larger is harmless
        if set_here and limits.concurrent_starts > limits.max_sessions:
            raise ValueError("limits.concurrent_starts must not be larger than limits.max_sessions")
        if 0 < self.cgroup.memory_max_mb < self.recycle.hard_memory_mb:
            most, hard = self.cgroup.memory_max_mb, self.recycle.hard_memory_mb
            raise ValueError(
                f"cgroup.memory_max_mb = {most} must not be smaller than recycle.hard_memory_mb = {hard:g}"
            )
        if self.profile.runtime_dir is not None and self.profile.at_rest != "sealed":
            raise ValueError(
                'profile.runtime_dir needs profile.at_rest = "sealed": what is there is gone after a reboot'
            )
        return self


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where its values came from: dotted key -> ``config.toml:12`` or a variable's name."""

    config: Config
    path: Path | None
    origins: Mapping[str, str]


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read the file (given, ``WAGUARD_CONFIG``, or the first of `SEARCHED` that exists) and the environment.

    Raises `ConfigError`. A file that is named must exist, and one that may be there must be readable; without any file the
    defaults hold.
    """
    file_there = _bare(environ[ENV_FILE]) if ENV_FILE in environ else None
    if file_there == "":
        raise ConfigError(f"{ENV_FILE} is empty: name a file, or do not set it.")
    named = path or (Path(file_there) if file_there is not None else None)
    file = named or next(filter(_may_be_there, SEARCHED), None)
    data: dict[str, Any] = {}
    origins: dict[str, str] = {}
    lines: Mapping[str, int] = {}
    if file is not None:
        text = _read(file)
        try:
            data = tomli.loads(text)
        except (ValueError, RecursionError) as error:  # a number too long, tables nested too deep
            raise ConfigError(f"{file}: not valid TOML: {error}.") from None
        lines = _lines(text)
        origins = {key: f"{file}:{line}" for key, line in lines.items()}
    _overlay(data, origins, environ)
    try:
        return Loaded(Config.model_validate(data), file, origins)
    except ValidationError as error:
        problems = [_explain(problem, origins, file) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems), hint="", problems=problems) from None


def _may_be_there(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (
        PermissionError
    ):  # to go on without what holds for others here would be another daemon's configuration
        return True
    except OSError:
        return False


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # Windows puts a byte order mark at its beginning
    except UnicodeDecodeError as error:
        wide = error.object[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        raise ConfigError(
            f"{file}: not UTF-8 text{' but UTF-16: save it as UTF-8' if wide else ''}."
        ) from None
    except PermissionError:
        raise ConfigError(
            f"{file}: cannot be read: Permission denied.",
            hint="As root: sudo waguard ...; with a client's token: WAGUARD_TOKEN=... waguard ... --url URL; or name another "
            "with --config.",
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.") from None


def _overlay(data: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str]) -> None:
    """Lay ``WAGUARD_<SECTION>__<KEY>`` over the file's data."""
    sections: dict[str, Any] = {n: f.annotation for n, f in Config.model_fields.items()}
    for name, raw in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX) or _of_a_service(name, environ):
            continue
        section, divided, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if not divided:
            _refuse_near_miss(name, sections)
            continue
        if section not in sections:
            raise ConfigError(f"{name}: there is no section {section!r}.{_close(section, sections)}")
        fields = sections[section].model_fields
        if key not in fields:
            raise ConfigError(f"{name}: there is no key {key!r} in [{section}].{_close(key, fields)}")
        table = data.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _value(raw, fields[key].annotation)
            origins[f"{section}.{key}"] = name


def _of_a_service(name: str, environ: Mapping[str, str]) -> bool:
    """Whether Kubernetes has set it, for a Service of the pod's namespace that happens to be called so.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    link = re.fullmatch(
        r"(?P<service>.+?)_(PORT(_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?|SERVICE_(HOST|PORT(_.+)?))", name
    )
    port = environ.get(f"{link['service']}_PORT", "") if link is not None else ""
    return re.match(r"(tcp|udp|sctp)://", port) is not None


def _bare(raw: str) -> str:
    """Without what files of variables leave: the carriage return of a line from Windows, quotes around the whole."""
    text = raw.removesuffix("\r")
    with suppress(ValueError, RecursionError):
        if text[:1] in {'"', "'"} and len(data := tomli.loads(f"value = {text}")) == 1:
            return str(data["value"])
    return text


def _refuse_near_miss(name: str, sections: Mapping[str, Any]) -> None:
    """``WAGUARD_API_PORT`` would be ignored in silence; other ``WAGUARD_...`` names are not the configuration's."""
    section, _, key = name.removeprefix(ENV_PREFIX).lower().strip("_").partition("_")
    if section in sections and key in sections[section].model_fields:
        right = f"{ENV_PREFIX}{section}__{key}".upper()
        raise ConfigError(f"{name}: section and key are divided by two underscores. Did you mean {right!r}?")


def _value(raw: str, annotation: Any) -> Any:
    """An environment variable's text as the TOML value it would be in the file; text stays text."""
    raw = _bare(raw)
    if (
        annotation is str
        or annotation in (Path | None, Path, AnyPath, AnyPath | None, SecretStr | None)
        or "Literal" in str(annotation)
    ):
        return raw
    try:
        data = tomli.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return raw
    return data["value"] if len(data) == 1 else raw


def _lines(text: str) -> dict[str, int]:
    """Dotted key -> line number, for the plain ``[section]`` / ``key = value`` form that our files have."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\s*\[{1,2}\s*([A-Za-z0-9_.\"-]+)\s*\]", line):
            section = header[1].replace('"', "")
            found.setdefault(section, number)
        elif key := re.match(r"\s*([A-Za-z0-9_.\"-]+)\s*=", line):
            name = key[1].replace('"', "")
            found.setdefault(f"{section}.{name}" if section else name, number)
    return found


_RIGHT = {
    "bool_type": "true or false",
    "list_type": 'a list in brackets, like ["a", "b"]',
    "dict_type": 'a table in braces, like {a = "b"}',
}
"""What would be right, where pydantic says only what was wrong."""


def _explain(problem: Any, origins: Mapping[str, str], file: Path | None) -> str:
    """One pydantic error as a sentence: where, which key, what was wrong, what would be right."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known: Mapping[str, Any] = Config.model_fields
        if len(location) > 1:
            known = known[location[0]].annotation.model_fields
        kind = "key" if len(location) > 1 else "section"
        message = f"there is no such {kind}.{_close(location[-1], known)}"
        return f"{_where(location, message, origins, file)}: {key}: {message}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] == "model_type":
        message = f"must be a table: [{key}]"
    elif problem["type"] == "path_type":
        message = f"must be a path in quotes, not {problem['input']!r}"
    elif problem["type"] != "value_error":
        message = _RIGHT.get(problem["type"], message).removeprefix("String should ")
        message = f"must {message}" if message.startswith("match") else f"must be {message}"
        shown = _CREDENTIALS.sub("...@", repr(problem["input"]))
        if "token" not in key and not isinstance(problem["input"], list | dict):
            message += f", not {shown if len(shown) < 60 else shown[:57] + '...'}"
    return (
        ": ".join(
            part
            for part in (_where(location, message, origins, file), key, message.removesuffix("."))
            if part
        )
        + "."
    )


def _where(location: list[str], message: str, origins: Mapping[str, str], file: Path | None) -> str:
    """Where the value came from; of a combination of values, where those came from that the message names."""
    named = []
    for key, origin in origins.items():
        parts = key.split(".")
        name = ".".join(parts[len(location) :])
        if len(parts) > 1 and name and parts[: len(location)] == location:
            named += [origin] if re.search(rf"\b{re.escape(name)}\b", message) else []
    for end in range(len(location), 0, -1):
        at = ".".join(location[:end])
        if at in origins and (end > 1 or not named):
            return origins[at]
    return ", ".join(dict.fromkeys(named)) or (str(file) if file else "configuration")


def _close(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(sorted(known))}."
