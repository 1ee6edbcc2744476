"""The control port of a running daemon, asked on behalf of the command line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeGuard, TypeVar

from waguard.asking import daemon, verbs
from waguard.asking.ask import LOOK_S, UNIX, Ask
from waguard.cli.errors import NoToken
from waguard.cli.peer import Proof
from waguard.cli.service import Service, start
from waguard.cli.tokens import given, own_token
from waguard.cli.wire import Meanwhile, Wire
from waguard.config.sections import Config
from waguard.core.model import ClientCode
from waguard.errors import NoDaemon
from waguard.system.files import replacing

P = ParamSpec("P")
T = TypeVar("T")


def _done(verb: Callable[P, Ask[T]]) -> Callable[Concatenate["Control", P], T]:
    """The verb, carried out."""

    def do(self: "Control", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.do(verb(*args, **kwargs))

    return do


class Control:
    """Raises the `WaguardError` that the daemon answered, or why it did not."""

    def __init__(self, wire: Wire, patience_s: float) -> None:
        self._wire = wire
        self._patience_s = patience_s

    def do(self, ask: Ask[T], meanwhile: Meanwhile | None = None) -> T:
        return self._wire.do(ask, ask.limit_s(self._patience_s), meanwhile)

    def export(self, code: ClientCode, snapshot_id: str, file: Path, *, plain: bool) -> None:
        """Write a snapshot into a file that is not there yet; one that does not arrive whole leaves none."""
        with replacing(file) as new:
            self.do(verbs.export(code, snapshot_id, new, plain=plain))

    sessions = _done(daemon.list_sessions)
    session = _done(verbs.show)
    disconnect = _done(verbs.disconnect)
    pairing_code = _done(verbs.pairing_code)
    cleanup = _done(verbs.cleanup)
    history = _done(verbs.history)
    snapshots = _done(verbs.snapshots)
    snapshot = _done(verbs.snapshot)
    check_snapshot = _done(verbs.check_snapshot)
    check_undo = _done(verbs.check_undo)
    try_import = _done(verbs.try_import)
    values = _done(verbs.values)
    value = _done(verbs.value)
    delete_value = _done(verbs.delete_value)
    settings = _done(verbs.settings)
    put_settings = _done(verbs.put_settings)
    tokens = _done(daemon.tokens)
    create_token = _done(daemon.create_token)
    rotate_token = _done(daemon.rotate_token)
    revoke_token = _done(daemon.revoke_token)
    webhooks = _done(daemon.webhooks)
    create_webhook = _done(daemon.create_webhook)
    change_webhook = _done(daemon.change_webhook)
    rotate_webhook = _done(daemon.rotate_webhook)
    delete_webhook = _done(daemon.delete_webhook)
    test_webhook = _done(daemon.test_webhook)
    webhook_messages = _done(daemon.webhook_messages)
    redrive_webhook = _done(daemon.redrive_webhook)
    reap = _done(daemon.reap)
    schedule = _done(daemon.schedule)
    stats = _done(daemon.stats)


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
