"""The sections of the configuration and their keys: each with its default and its limits; what does not exist is refused."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from waguard.config.clients import Clients, ClientSettings, Effective
from waguard.config.shapes import LANGUAGE, AnyPath, Code, Flags, Section, looks
from waguard.core.health.faults import Fault
from waguard.core.health.patience import SUSPECTED_S
from waguard.core.labels import Priority
from waguard.core.model import client_code
from waguard.errors import InvalidClientCode
from waguard.schedule.rule import Rule

SHORTEST_TOKEN = 16
_HOST = r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]"
_ORIGIN = r"[a-z][a-z0-9+.-]*://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d+)?"
_LOOPBACK = r"localhost|127(\.[0-9]{1,3}){3}|[0:.]*[:.]0*1(%.*)?"
_NETWORK = r"[0-9a-fA-F.:]+(/[0-9.]+)?"
_URL = r" *[Hh][Tt][Tt][Pp][Ss]?://[^\x00-\x1f\x7f]+"


Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Token = Annotated[SecretStr, looks(minLength=SHORTEST_TOKEN)]


def token_problem(token: str) -> str:
    """What keeps a text from being a token: an empty one would let in whoever sends none. Empty if nothing does."""
    if len(token) < SHORTEST_TOKEN:
        return f"must have at least {SHORTEST_TOKEN} characters"
    return "" if token.isprintable() and " " not in token else "must have no spaces or control characters"


class Sessions(Section):
    dir: AnyPath = Path("sessions")
    """Profiles, the registry and the tokens live below it; one daemon at a time owns it."""
    retired_keep_hours: Annotated[float, Field(ge=0, le=24 * 365)] = 168.0
    """A retired profile is deleted this long after its cleanup; 0 deletes it in the background at once."""

    quota_mb: Annotated[int, Field(ge=0)] = 0
    """What all of it may take; 0 sets no limit."""


class Profile(Section):
    at_rest: Literal["plain", "sealed"] = "plain"
    """sealed: a stopped session leaves only the encrypted form of its login on disk."""
    runtime_dir: AnyPath | None = None
    """Where the plain form is while a browser runs, a tmpfs; by default below ``sessions.dir``."""
    cache_limit_mb: Annotated[int, Field(ge=0)] = 300
    """Caches of a stopped profile that take more are dropped; 0 sets no limit."""


class Snapshots(Section):
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


class WhatsApp(Section):
    url: Annotated[str, looks(pattern=_URL)] = "https://web.whatsapp.com/"
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


class Browser(Section):
    path: AnyPath | None = None
    """The browser to run; by default the first of headless-shell, Chromium, Chrome that is installed."""
    extra_flags: Flags = []
    user: str = ""
    """The unprivileged user that browsers run as when the daemon is root; by default waguard, else an id that nobody has."""
    user_agent: str = ""
    """By default the browser's own without the word Headless."""
    language: Annotated[str, Field(pattern=LANGUAGE)] = "en-US"
    chromium_sandbox: bool = True
    ca_file: AnyPath | None = None
    """PEM: certificate authorities that the browser trusts beside its own, see `browser.authorities`, and an https proxy's certificate may be of."""


class Sandbox(Section):
    kind: Literal["auto", "bubblewrap", "plain"] = "auto"
    """auto takes bubblewrap where it works and falls back to plain; bubblewrap refuses to start without it."""
    connect_ports: list[Annotated[int, Field(ge=1, le=65_535)]] = [53, 443]
    """TCP ports that a browser may connect to, beside that of whatsapp.url: not the control port, and not 80, where clouds have
    their metadata services. Empty: to all. It may listen on none."""


class Limits(Section):
    concurrent_starts: Annotated[int, Field(ge=1, le=64)] = min(64, max(2, os.cpu_count() or 2))
    max_sessions: Annotated[int, Field(ge=1, le=10_000)] = 500
    session_memory_mb: Annotated[int, Field(ge=0)] = 300
    """Free memory one more session must find, above the reserve."""
    reserve_memory_mb: Annotated[int, Field(ge=0)] = 256
    memory_pressure: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 20.0
    """Percent of time in which nothing gets on for want of memory; with more no session starts. 0 does not look."""
    reserve_disk_mb: Annotated[int, Field(ge=0)] = 256


class Cgroup(Section):
    """Where a service manager has delegated a cgroup to the daemon: see `sandbox.cgroup`."""

    enabled: bool = True
    memory_max_mb: Annotated[int, Field(ge=0)] = 4096
    """More than this one browser does not get; the kernel then ends a process of it. 0 sets no limit."""
    pids_max: Annotated[int, Field(ge=0)] = 4096
    """Processes and threads of one browser. 0 sets no limit."""


class Schedule(Section):
    """When the daemon does what by itself: an interval (``6h``), a cron expression (``30 3 * * *``), or ``never``."""

    reap: str = "1h"
    snapshot: str = "1d"
    jitter_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 300.0

    @field_validator("reap", "snapshot")
    @classmethod
    def _rule(cls, text: str) -> str:
        Rule.parse(text)
        return text


class Deadlines(Section):
    """Seconds; one per stage, and the name is the stage's."""

    admit: Seconds = 30.0
    prepare: Seconds = 10.0
    start: Seconds = 15.0
    open: Seconds = 45.0
    close: Seconds = 5.0
    kill: Seconds = 10.0
    restore: Seconds = 60.0
    snapshot: Seconds = 300.0
    scan: Seconds = 120.0
    """How long a caller of ``connect?wait=connected`` waits for the phone by default."""


class Restart(Section):
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


class Probes(Section):
    """Seconds between two looks of each kind; `Page` has those at the page."""

    process_s: Seconds = 5.0
    browser_s: Seconds = 15.0
    network_s: Seconds = 20.0
    gpu_s: Seconds = 30.0
    memory_s: Seconds = 60.0
    answer_s: Seconds = 5.0
    """Deadline of one look."""


class Health(Section):
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


class Recycle(Section):
    """When a browser that is well is closed and started again, in the client's quiet hour."""

    soft_memory_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 900.0
    hard_memory_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2000.0
    max_age_h: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 336.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.hard_memory_mb and self.soft_memory_mb > self.hard_memory_mb:
            raise ValueError("soft_memory_mb must not be larger than hard_memory_mb")
        return self


class History(Section):
    keep_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 90.0
    """What is older is deleted; 0 keeps no history at all."""


class Learning(Section):
    """What is done with the history: see `core.learning`."""

    enabled: bool = True
    floor: Annotated[float, Field(gt=0, le=1)] = 0.25
    ceiling: Annotated[float, Field(ge=1, le=100)] = 3.0


class Page(Section):
    poll_loading_s: Seconds = 0.05
    poll_s: Seconds = 1.0
    read_s: Seconds = 5.0
    """Deadline of one look at the page."""
    pairing_s: Seconds = 20.0
    unknown_after: Annotated[int, Field(ge=1, le=100)] = 6
    """So many looks in a row that tell nothing, and the link is unknown."""


class Api(Section):
    host: Annotated[str, looks(pattern=_LOOPBACK)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8717
    """0 takes a free one; the daemon's ``daemon.ready`` log line says which."""
    allowed_hosts: list[Annotated[str, looks(pattern=_HOST)]] = []
    """Names besides localhost, 127.0.0.1 and [::1] that a Host header may carry (a reverse proxy's)."""
    clients: list[Code] = []
    """Client codes that get a token of their own at the next start."""
    admin_token: Token | None = None
    client_tokens: dict[Code, Token] = {}
    allowed_origins: list[Annotated[str, looks(pattern=_ORIGIN)]] = []
    """Of pages that may attach to sessions: a WebSocket of a browser's has an Origin, one of a program's has none."""
    socket: AnyPath | None = None
    """A unix socket beside the port."""
    socket_uids: list[int | str] = [0]
    socket_gids: list[int | str] = []
    """Users and groups who need no token there."""
    socket_scopes: list[Literal["read", "connect", "cleanup", "backup", "drive", "admin"]] = ["admin"]
    costly_per_minute: Annotated[int, Field(ge=0, le=100_000)] = 120
    """How often a token may ask for what costs much, of each client. 0: as often as it likes."""
    event_readers: Annotated[int, Field(ge=0, le=10_000)] = 100
    """How many may read the feed of events at a time; one token half of them."""
    heartbeat_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 15.0
    max_body_kb: Annotated[int, Field(ge=1, le=10_240)] = 64
    request_s: Seconds = 20.0
    """How long a connection may be without a whole header, and a body without its next piece."""

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not re.fullmatch(_HOST, host):
                raise ValueError(f"{host!r} is not a host name: write it without scheme and port")
        return hosts

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not re.fullmatch(_ORIGIN, origin):
                raise ValueError(f"{origin!r} is not an origin: write scheme://host, in small letters")
        return origins

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


class Jwt(Section):
    """The CRM's own tokens, which it signs."""

    key_file: AnyPath | None = None
    algorithm: Literal["HS256", "RS256", "ES256"] = "RS256"
    claim: Annotated[str, Field(min_length=1, max_length=200)] = "clientCode"
    scopes: list[Literal["read", "connect", "cleanup", "backup", "drive"]] = ["read", "connect", "cleanup"]
    issuer: str | None = None
    audience: str | None = None
    leeway_s: Annotated[int, Field(ge=0, le=600)] = 30
    """By how much the clocks of the CRM and of this machine may differ."""


class Relay(Section):
    """Apps that drive a session's page."""

    clients: Annotated[int, Field(ge=1, le=64)] = 8
    """At a time, of each session."""
    blocked_s: Seconds = 60.0
    """How long a client may keep the page waiting by a dialog, a pause or a script."""
    follow_s: Seconds = 120.0
    """How long a client that follows its session waits for the next browser."""
    replay_synced: bool = True
    """Whether whatsapp-web.js is told of a sync that was over before it listened."""
    silent_s: Seconds = 60.0
    """How long a client may give no sign of life."""
    memory_mb: Annotated[int, Field(ge=64)] = 512
    """Of all clients of all sessions together."""
    upload_mb: Annotated[int, Field(ge=1, le=4096)] = 100
    uploads_mb: Annotated[int, Field(ge=0)] = 500
    """Of each session; 0 takes none."""
    downloads_mb: Annotated[int, Field(ge=0)] = 0
    """Of each session; 0 denies them."""
    files_keep_hours: Annotated[float, Field(gt=0, le=24 * 365, allow_inf_nan=False)] = 24.0
    """What was uploaded or downloaded is deleted then, by the sweep."""


class Webhooks(Section):
    """Where events are posted to."""

    allowed_networks: list[Annotated[str, looks(pattern=_NETWORK)]] = []
    """Networks that are not public, and that receivers may be in."""
    answer_s: Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)] = 15.0
    """Deadline of one attempt, from the lookup of the name to the answer's status."""

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, networks: list[str]) -> list[str]:
        for one in networks:
            try:
                ipaddress.ip_network(one)
            except ValueError as error:
                raise ValueError(f"{error}: write for example 10.20.0.0/16") from None
        return networks


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console", "journal"] = "auto"
    """auto: entries with fields where stderr is systemd's journal, readable on a terminal, one JSON object a line elsewhere."""


class Config(Section):
    sessions: Sessions = Sessions()
    profile: Profile = Profile()
    snapshots: Snapshots = Snapshots()
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
    jwt: Jwt = Jwt()
    relay: Relay = Relay()
    webhooks: Webhooks = Webhooks()
    log: Log = Log()
    clients: Clients = Clients.model_validate({})

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
        for code in self.clients.all():
            try:
                self.settings(code).check()
            except ValueError as error:
                raise ValueError(f"clients.{code}.{error}") from None
        return self

    def settings(self, code: str, *put: ClientSettings) -> Effective:
        """What holds for a client with what is ``put`` at run time."""
        return self._for_all.over(self.clients.of(code), *put)

    @property
    def _for_all(self) -> Effective:
        keep = self.snapshots
        return Effective(
            labels=(),
            proxy=None,
            language=self.browser.language,
            time_zone="",
            user_agent=self.browser.user_agent,
            extra_flags=self.browser.extra_flags,
            memory_max_mb=self.cgroup.memory_max_mb,
            priority=Priority.NORMAL,
            snapshots_scheduled=True,
            snapshots_keep_last=keep.keep_last,
            snapshots_keep_daily=keep.keep_daily,
            snapshots_keep_weekly=keep.keep_weekly,
            snapshots_keep_monthly=keep.keep_monthly,
            recycle_soft_memory_mb=self.recycle.soft_memory_mb,
            recycle_hard_memory_mb=self.recycle.hard_memory_mb,
            recycle_max_age_h=self.recycle.max_age_h,
        )
