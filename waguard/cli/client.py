"""The control port of a running daemon, asked on behalf of the command line."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import TypeAdapter, ValidationError

from waguard.cli.errors import Foreign, NoAnswer, NoDaemon, NotWaguard
from waguard.cli.peer import Proof
from waguard.cli.service import Service, start
from waguard.cli.tokens import given, own_token
from waguard.config.sections import Config
from waguard.core.model import ClientCode, Wait
from waguard.core.shown import BackupView, CleanupView, JobView, SandboxView, SessionView, StatsView, Sweep
from waguard.core.stats import Happening
from waguard.errors import BY_CODE, WaguardError
from waguard.system.files import in_thread, in_threads, replacing

T = TypeVar("T")

_LOOK_S = 10.0
"""Deadline of an answer that waits for nothing, in seconds."""
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SessionList:
    sessions: list[SessionView]
    sandbox: SandboxView | None = None
    """Only the admin is told."""


@dataclass(frozen=True, slots=True)
class BackupList:
    backups: list[BackupView]


@dataclass(frozen=True, slots=True)
class JobList:
    jobs: list[JobView]


@dataclass(frozen=True, slots=True)
class Tried:
    """The answer to a dry run."""

    backup: BackupView


@dataclass(frozen=True, slots=True)
class HistoryList:
    history: list[Happening]


SESSION = TypeAdapter(SessionView)
SESSIONS = TypeAdapter(SessionList)
CLEANUP = TypeAdapter(CleanupView)
BACKUP = TypeAdapter(BackupView)
BACKUPS = TypeAdapter(BackupList)
SWEEP = TypeAdapter(Sweep)
JOBS = TypeAdapter(JobList)
STATS = TypeAdapter(StatsView)
HISTORY = TypeAdapter(HistoryList)
_TRIED = TypeAdapter(Tried)
_PROBLEM = TypeAdapter(dict[str, Any])


class Control:
    """Each method is one request. Raises the `WaguardError` that the daemon answered, or why it did not."""

    def __init__(self, http: aiohttp.ClientSession, url: str, patience_s: float, start: str) -> None:
        self._http = http
        self._url = url
        self._patience_s = patience_s
        self._start = start

    async def sessions(self) -> SessionList:
        return self._parsed(SESSIONS, await self._ask("GET", "/v1/sessions"))

    async def session(self, code: ClientCode) -> SessionView:
        return self._parsed(SESSION, await self._ask("GET", f"/v1/sessions/{code}"))

    async def connect(
        self, code: ClientCode, *, wait: Wait, fresh: bool, timeout_s: float | None
    ) -> SessionView:
        return await self._bring_up(code, "connect", wait, timeout_s, fresh=str(fresh).lower())

    async def restart(self, code: ClientCode, *, wait: Wait, timeout_s: float | None) -> SessionView:
        return await self._bring_up(code, "restart", wait, timeout_s)

    async def disconnect(self, code: ClientCode) -> SessionView:
        path = f"/v1/sessions/{code}/disconnect"
        return self._parsed(SESSION, await self._ask("POST", path, limit_s=self._patience_s))

    async def cleanup(self, code: ClientCode) -> CleanupView:
        path = f"/v1/sessions/{code}/cleanup"
        return self._parsed(CLEANUP, await self._ask("POST", path, limit_s=self._patience_s))

    async def history(self, code: ClientCode, *, limit: int) -> HistoryList:
        path = f"/v1/sessions/{code}/history"
        return self._parsed(HISTORY, await self._ask("GET", path, limit=str(limit)))

    async def backups(self, code: ClientCode) -> BackupList:
        return self._parsed(BACKUPS, await self._ask("GET", f"/v1/sessions/{code}/backups"))

    async def backup(self, code: ClientCode) -> BackupView:
        path = f"/v1/sessions/{code}/backups"
        return self._parsed(BACKUP, await self._ask("POST", path, limit_s=self._patience_s))

    async def check_backup(self, code: ClientCode, backup_id: str) -> BackupView:
        path = f"/v1/sessions/{code}/backups/{quote(backup_id, safe='')}/restore"
        body = await self._ask("POST", path, limit_s=self._patience_s, dry_run="true")
        return self._parsed(_TRIED, body).backup

    async def restore(
        self, code: ClientCode, backup_id: str, *, wait: Wait, timeout_s: float | None
    ) -> SessionView:
        return await self._bring_up(code, f"backups/{quote(backup_id, safe='')}/restore", wait, timeout_s)

    async def bring(
        self, code: ClientCode, archive: IO[bytes], *, login: str = "", wait: Wait, timeout_s: float | None
    ) -> SessionView:
        """``login``: which one, if there are several in the archive."""
        options = {"login": login} if login else {}
        return await self._bring_up(code, "import", wait, timeout_s, body=archive, **options)

    async def try_import(self, code: ClientCode, archive: IO[bytes], *, login: str = "") -> BackupView:
        path = f"/v1/sessions/{code}/import"
        options = {"dry_run": "true"} | ({"login": login} if login else {})
        body = await self._ask("POST", path, limit_s=self._patience_s, body=archive, **options)
        return self._parsed(_TRIED, body).backup

    async def export(self, code: ClientCode, backup_id: str, file: Path, *, plain: bool) -> None:
        """Write a snapshot into a file that is not there yet; one that does not arrive whole leaves none."""
        path = f"/v1/sessions/{code}/backups/{quote(backup_id, safe='')}"
        form = "plain" if plain else "sealed"
        # However long it is: only that nothing comes has a deadline.
        async with (
            self._answered("GET", path, limit_s=self._patience_s, accept="*/*", form=form) as answer,
            in_threads(replacing(file)) as target,
        ):
            with self._on_its_way(self._patience_s):  # else it is taken for the file's
                async for piece in answer.content.iter_chunked(_PIECE):
                    await in_thread(target.write, piece)

    async def reap(self, *, dry_run: bool) -> Sweep:
        wish = str(dry_run).lower()
        return self._parsed(
            SWEEP, await self._ask("POST", "/v1/reap", limit_s=self._patience_s, dry_run=wish)
        )

    async def schedule(self) -> JobList:
        return self._parsed(JOBS, await self._ask("GET", "/v1/schedule"))

    async def stats(self, code: ClientCode | None, hours: float) -> StatsView:
        path = f"/v1/stats?client={code}" if code is not None else "/v1/stats"
        return self._parsed(STATS, await self._ask("GET", path, limit_s=self._patience_s, hours=f"{hours:g}"))

    async def _bring_up(
        self,
        code: ClientCode,
        verb: str,
        wait: Wait,
        timeout_s: float | None,
        body: IO[bytes] | None = None,
        **options: str,
    ) -> SessionView:
        options["wait"] = wait.value
        if timeout_s is not None:
            options["timeout_s"] = f"{timeout_s:g}"
        limit_s = self._patience_s + (timeout_s or 0.0)
        path = f"/v1/sessions/{code}/{verb}"
        return self._parsed(SESSION, await self._ask("POST", path, limit_s=limit_s, body=body, **options))

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        limit_s: float = _LOOK_S,
        body: IO[bytes] | None = None,
        **options: str,
    ) -> bytes:
        async with self._answered(
            method, path, limit_s=limit_s, total_s=limit_s, body=body, **options
        ) as answer:
            return await answer.read()

    @asynccontextmanager
    async def _answered(
        self,
        method: str,
        path: str,
        *,
        limit_s: float,
        total_s: float | None = None,
        accept: str = "application/json",
        body: IO[bytes] | None = None,
        **options: str,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is a good one, to be read in the block. ``limit_s`` is for each piece of it, ``total_s`` for all."""
        with self._on_its_way(limit_s):
            async with self._http.request(
                method,
                self._url + path,
                params=options,
                data=body,
                headers={"Accept": accept},
                timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=_LOOK_S, sock_read=limit_s),
                allow_redirects=False,
            ) as answer:
                if answer.status == 200:
                    yield answer
                    return
                if answer.content_type == "application/problem+json":
                    raise _error(self._parsed(_PROBLEM, await answer.read()))
                raise self._stranger(f"It answered {answer.status} {answer.content_type}.")

    @contextmanager
    def _on_its_way(self, limit_s: float) -> Iterator[None]:
        """What goes wrong between us and the daemon. Raises `NoDaemon`, `NoAnswer`."""
        try:
            yield
        except TimeoutError:
            raise NoAnswer(
                f"The daemon at {self._url} did not answer within {limit_s:g} s.", hint=_LOG
            ) from None
        except aiohttp.ClientConnectorError:
            raise NoDaemon(f"No daemon answers at {self._url}.", hint=f"Start it: {self._start}") from None
        except aiohttp.ClientError as error:
            raise NoAnswer(f"{self._url} broke off: {error or type(error).__name__}.", hint=_LOG) from None

    def _parsed(self, adapter: TypeAdapter[T], body: bytes) -> T:
        try:
            return adapter.validate_json(body)
        except ValidationError as error:
            raise self._stranger(f"It answered with {error.title}: {error.errors()[0]['msg']}.") from None

    def _stranger(self, said: str) -> NotWaguard:
        return NotWaguard(
            f"What answers at {self._url} is not this version of waguard. {said}",
            hint="After an upgrade restart the daemon; else set api.port, or name the daemon with --url.",
        )


_LOG = "Its log says more."


def _error(problem: dict[str, Any]) -> WaguardError:
    """The error that the daemon put on the wire."""
    code, message = str(problem.pop("code", "internal")), str(problem.pop("detail", "No reason given."))
    hint = str(problem.pop("hint", ""))
    # What is left is the error's details, and what HTTP has of it.
    if code in BY_CODE and code != "config_invalid":
        return BY_CODE[code](message, hint=hint, **problem)
    return Foreign(code, message, hint=hint, **problem)


@asynccontextmanager
async def control(config: Config, service: Service | None, url: str | None) -> AsyncIterator[Control]:
    """The daemon of this configuration, or the one at ``url``. Raises `NoToken`, `NoDaemon`."""
    address = (url or _address(config)).rstrip("/")
    headers = {"Authorization": f"Bearer {own_token(config, service)}"}
    # A daemon that keeps its own deadlines has answered by then.
    longest = config.learning.ceiling if config.learning.enabled else 1.0
    patience_s = sum(config.deadlines.model_dump().values()) * longest + _LOOK_S
    # A token that was given may be of the daemon that was named; else it is of the daemon of these sessions.
    proof = Proof(config, service, address, own=url is None or not given(), here=url is None)
    async with aiohttp.ClientSession(headers=headers, trace_configs=[proof.tracing()]) as http:
        yield Control(http, address, patience_s, start(service))


def _address(config: Config) -> str:
    host, port = config.api.host, config.api.port
    if port == 0:
        raise NoDaemon(
            "api.port is 0, so the daemon chose its port itself.",
            hint="The daemon.ready line of its log has the address; name it with --url.",
        )
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
