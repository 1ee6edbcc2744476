"""The control port of a running daemon, asked on behalf of the command line."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeGuard, TypeVar
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter, ValidationError

from waguard.cli.errors import Foreign, NoDaemon, NoToken, NotWaguard
from waguard.cli.peer import Proof
from waguard.cli.service import Service, start
from waguard.cli.tokens import given, own_token
from waguard.cli.wire import LOOK_S, UNIX, Answer, Meanwhile, Wire
from waguard.config.sections import Config
from waguard.core.deliveries import State
from waguard.core.model import ClientCode, Wait
from waguard.core.shown import (
    AllSessions,
    CleanupView,
    HistoryList,
    JobList,
    PairingView,
    SessionView,
    SnapshotList,
    SnapshotTried,
    SnapshotView,
    StatsView,
    Sweep,
    TokenList,
    TokenMade,
    TokenView,
    UndoTried,
    UndoView,
    ValueDeleted,
    ValueList,
)
from waguard.core.shown_webhooks import (
    MessageList,
    Redriven,
    WebhookList,
    WebhookMade,
    WebhookTried,
    WebhookView,
)
from waguard.errors import BY_CODE, WaguardError
from waguard.system.files import replacing

T = TypeVar("T")


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
"""Made when it is needed: each takes milliseconds, and a command needs one."""


class Control:
    """Each method is one request. Raises the `WaguardError` that the daemon answered, or why it did not."""

    def __init__(self, wire: Wire, patience_s: float) -> None:
        self._wire = wire
        self._patience_s = patience_s

    def sessions(self) -> AllSessions:
        return self._parsed(AllSessions, self._ask("GET", "/v1/sessions"))

    def session(self, code: ClientCode) -> SessionView:
        return self._parsed(SessionView, self._ask("GET", f"/v1/sessions/{code}"))

    def connect(
        self,
        code: ClientCode,
        *,
        wait: Wait,
        fresh: bool,
        timeout_s: float | None,
        meanwhile: Meanwhile | None = None,
    ) -> SessionView:
        return self._bring_up(code, "connect", wait, timeout_s, meanwhile, fresh=str(fresh).lower())

    def restart(
        self, code: ClientCode, *, wait: Wait, timeout_s: float | None, meanwhile: Meanwhile | None = None
    ) -> SessionView:
        return self._bring_up(code, "restart", wait, timeout_s, meanwhile)

    def disconnect(self, code: ClientCode) -> SessionView:
        path = f"/v1/sessions/{code}/disconnect"
        return self._parsed(SessionView, self._ask("POST", path, limit_s=self._patience_s))

    def pairing_code(self, code: ClientCode, phone: str) -> PairingView:
        path = f"/v1/sessions/{code}/pairing-code"
        return self._parsed(PairingView, self._ask("POST", path, {"phone": phone}, limit_s=self._patience_s))

    def cleanup(self, code: ClientCode) -> CleanupView:
        path = f"/v1/sessions/{code}/cleanup"
        return self._parsed(CleanupView, self._ask("POST", path, limit_s=self._patience_s))

    def history(self, code: ClientCode, *, limit: int) -> HistoryList:
        path = f"/v1/sessions/{code}/history"
        return self._parsed(HistoryList, self._ask("GET", path, {"limit": str(limit)}))

    def snapshots(self, code: ClientCode) -> SnapshotList:
        return self._parsed(SnapshotList, self._ask("GET", f"/v1/sessions/{code}/snapshots"))

    def snapshot(self, code: ClientCode) -> SnapshotView:
        path = f"/v1/sessions/{code}/snapshots"
        return self._parsed(SnapshotView, self._ask("POST", path, limit_s=self._patience_s))

    def check_snapshot(self, code: ClientCode, snapshot_id: str) -> SnapshotView:
        path = f"/v1/sessions/{code}/snapshots/{quote(snapshot_id, safe='')}/restore"
        body = self._ask("POST", path, {"dry_run": "true"}, limit_s=self._patience_s)
        return self._parsed(SnapshotTried, body).snapshot

    def restore(
        self,
        code: ClientCode,
        snapshot_id: str,
        *,
        wait: Wait,
        timeout_s: float | None,
        meanwhile: Meanwhile | None = None,
    ) -> SessionView:
        verb = f"snapshots/{quote(snapshot_id, safe='')}/restore"
        return self._bring_up(code, verb, wait, timeout_s, meanwhile)

    def check_undo(self, code: ClientCode) -> UndoView:
        body = self._ask("POST", f"/v1/sessions/{code}/undo", {"dry_run": "true"}, limit_s=self._patience_s)
        return self._parsed(UndoTried, body).undo

    def undo(
        self, code: ClientCode, *, wait: Wait, timeout_s: float | None, meanwhile: Meanwhile | None = None
    ) -> SessionView:
        return self._bring_up(code, "undo", wait, timeout_s, meanwhile)

    def bring(
        self,
        code: ClientCode,
        archive: IO[bytes],
        *,
        login: str = "",
        wait: Wait,
        timeout_s: float | None,
        meanwhile: Meanwhile | None = None,
    ) -> SessionView:
        """``login``: which one, if there are several in the archive."""
        options = {"login": login} if login else {}
        return self._bring_up(code, "import", wait, timeout_s, meanwhile, body=archive, **options)

    def try_import(self, code: ClientCode, archive: IO[bytes], *, login: str = "") -> SnapshotView:
        path = f"/v1/sessions/{code}/import"
        options = {"dry_run": "true"} | ({"login": login} if login else {})
        body = self._ask("POST", path, options, limit_s=self._patience_s, body=archive)
        return self._parsed(SnapshotTried, body).snapshot

    def export(self, code: ClientCode, snapshot_id: str, file: Path, *, plain: bool) -> None:
        """Write a snapshot into a file that is not there yet; one that does not arrive whole leaves none."""
        path = f"/v1/sessions/{code}/snapshots/{quote(snapshot_id, safe='')}"
        target = f"{path}?form={'plain' if plain else 'sealed'}"
        # However long it is: only that nothing comes has a deadline.
        with self._wire.fetch(target, limit_s=self._patience_s) as (answer, pieces):
            self._good(answer)
            with replacing(file) as new:
                for piece in pieces:
                    new.write(piece)

    def values(self, code: ClientCode) -> ValueList:
        return self._parsed(ValueList, self._ask("GET", f"/v1/sessions/{code}/values"))

    def value(self, code: ClientCode, key: str) -> bytes:
        return self._ask("GET", _value(code, key))

    def delete_value(self, code: ClientCode, key: str) -> ValueDeleted:
        return self._parsed(ValueDeleted, self._ask("DELETE", _value(code, key)))

    def tokens(self) -> TokenList:
        return self._parsed(TokenList, self._ask("GET", "/v1/tokens"))

    def create_token(
        self, name: str, scopes: Sequence[str], clients: Sequence[str], expires_in_s: float | str
    ) -> TokenMade:
        options = {"name": name, "scopes": scopes, "clients": clients, "expires_in_s": expires_in_s}
        body = BytesIO(json.dumps(options).encode())
        return self._parsed(TokenMade, self._ask("POST", "/v1/tokens", body=body))

    def rotate_token(self, which: str, overlap_s: float) -> TokenMade:
        path = f"/v1/tokens/{quote(which, safe='')}/rotate"
        return self._parsed(TokenMade, self._ask("POST", path, {"overlap_s": f"{overlap_s:g}"}))

    def revoke_token(self, which: str) -> TokenView:
        path = f"/v1/tokens/{quote(which, safe='')}/revoke"
        return self._parsed(TokenView, self._ask("POST", path))

    def webhooks(self) -> WebhookList:
        return self._parsed(WebhookList, self._ask("GET", "/v1/webhooks"))

    def create_webhook(self, address: str, clients: str, kinds: str) -> WebhookMade:
        # In the body: no log of anybody's has that.
        body = BytesIO(json.dumps({"url": address, "clients": clients, "kinds": kinds}).encode())
        return self._parsed(WebhookMade, self._ask("POST", "/v1/webhooks", body=body))

    def change_webhook(self, webhook: str, *, enabled: bool) -> WebhookView:
        options = {"enabled": str(enabled).lower()}
        return self._parsed(WebhookView, self._ask("PATCH", _webhook(webhook), options))

    def rotate_webhook(self, webhook: str, overlap_s: float) -> WebhookMade:
        options = {"overlap_s": f"{overlap_s:g}"}
        return self._parsed(WebhookMade, self._ask("POST", _webhook(webhook, "/rotate"), options))

    def delete_webhook(self, webhook: str) -> WebhookView:
        return self._parsed(WebhookView, self._ask("DELETE", _webhook(webhook)))

    def test_webhook(self, webhook: str) -> WebhookTried:
        body = self._ask("POST", _webhook(webhook, "/test"), limit_s=self._patience_s)
        return self._parsed(WebhookTried, body)

    def webhook_messages(self, webhook: str, state: State, limit: int) -> MessageList:
        options = {"state": state.value, "limit": str(limit)}
        return self._parsed(MessageList, self._ask("GET", _webhook(webhook, "/messages"), options))

    def redrive_webhook(self, webhook: str, messages: Sequence[str]) -> Redriven:
        body = BytesIO(json.dumps({"messages": messages}).encode())
        return self._parsed(Redriven, self._ask("POST", _webhook(webhook, "/redrive"), body=body))

    def reap(self, *, dry_run: bool) -> Sweep:
        return self._parsed(
            Sweep, self._ask("POST", "/v1/reap", {"dry_run": str(dry_run).lower()}, limit_s=self._patience_s)
        )

    def schedule(self) -> JobList:
        return self._parsed(JobList, self._ask("GET", "/v1/schedule"))

    def stats(self, code: ClientCode | None, hours: float) -> StatsView:
        options = {"hours": f"{hours:g}"} | ({"client": code} if code is not None else {})
        return self._parsed(StatsView, self._ask("GET", "/v1/stats", options, limit_s=self._patience_s))

    def _bring_up(
        self,
        code: ClientCode,
        verb: str,
        wait: Wait,
        timeout_s: float | None,
        meanwhile: Meanwhile | None,
        body: IO[bytes] | None = None,
        **options: str,
    ) -> SessionView:
        options["wait"] = wait.value
        if timeout_s is not None:
            options["timeout_s"] = f"{timeout_s:g}"
        limit_s = self._patience_s + (timeout_s or 0.0)
        path = f"/v1/sessions/{code}/{verb}"
        answer = self._ask("POST", path, options, limit_s=limit_s, body=body, meanwhile=meanwhile)
        return self._parsed(SessionView, answer)

    def _ask(
        self,
        method: str,
        path: str,
        options: Mapping[str, str] | None = None,
        *,
        limit_s: float = LOOK_S,
        body: IO[bytes] | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> bytes:
        target = f"{path}?{urlencode(options)}" if options else path
        return self._good(self._wire.ask(method, target, limit_s=limit_s, body=body, meanwhile=meanwhile))

    def _good(self, answer: Answer) -> bytes:
        if answer.status == 200:
            return answer.body
        if answer.media_type == "application/problem+json":
            raise _error(self._parsed(dict[str, Any], answer.body))
        raise self._stranger(f"It answered {answer.status} {answer.media_type}.")

    def _parsed(self, kind: type[T], body: bytes) -> T:
        try:
            parsed: T = _adapter(kind).validate_json(body)
        except ValidationError as error:
            raise self._stranger(f"It answered with {error.title}: {error.errors()[0]['msg']}.") from None
        return parsed

    def _stranger(self, said: str) -> NotWaguard:
        return NotWaguard(
            f"What answers at {self._wire.url} is not this version of waguard. {said}",
            hint="After an upgrade restart the daemon; else set api.port, or name the daemon with --url.",
        )


def _value(code: ClientCode, key: str) -> str:
    return f"/v1/sessions/{code}/values/{quote(key, safe='')}"


def _webhook(webhook: str, verb: str = "") -> str:
    return f"/v1/webhooks/{quote(webhook, safe='')}{verb}"


def _error(problem: dict[str, Any]) -> WaguardError:
    """The error that the daemon put on the wire."""
    code, message = str(problem.pop("code", "internal")), str(problem.pop("detail", "No reason given."))
    hint = str(problem.pop("hint", ""))
    # What is left is the error's details, and what HTTP has of it.
    if code in BY_CODE and code != "config_invalid":
        return BY_CODE[code](message, hint=hint, **problem)
    return Foreign(code, message, hint=hint, **problem)


@contextmanager
def control(config: Config, service: Service | None, url: str | None) -> Iterator[Control]:
    """The daemon of this configuration, or the one at ``url``. Raises `NoToken`, `NoDaemon`."""
    address, token = _door(config, service, url)
    # A daemon that keeps its own deadlines has answered by then.
    longest = config.learning.ceiling if config.learning.enabled else 1.0
    patience_s = sum(config.deadlines.model_dump().values()) * longest + LOOK_S
    # A token that was given may be of the daemon that was named; else it is of the daemon of these sessions.
    proof = Proof(config, service, address, own=url is None or not given(), here=url is None)
    with Wire(address, token, proof, start(service)) as wire:
        yield Control(wire, patience_s)


def _door(config: Config, service: Service | None, url: str | None) -> tuple[str, str | None]:
    """Where to ask, and what to show there; None: the daemon knows by the unix socket who asks. Raises `NoToken`, `NoDaemon`."""
    if url is not None and url.startswith(UNIX):
        return url, given()
    try:
        return (url or _address(config)).rstrip("/"), own_token(config, service)
    except NoToken:
        if url is not None or not _is_there(config.api.socket):
            raise
        return f"{UNIX}{config.api.socket}", None


def _is_there(path: Path | None) -> TypeGuard[Path]:
    try:
        return path is not None and path.is_socket()
    except OSError:  # this user may not look
        return False


def _address(config: Config) -> str:
    host, port = config.api.host, config.api.port
    if port == 0:
        raise NoDaemon(
            "api.port is 0, so the daemon chose its port itself.",
            hint="The daemon.ready line of its log has the address; name it with --url.",
        )
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
