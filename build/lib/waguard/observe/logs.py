"""Events as log lines on stderr: one JSON object a line, or readable where a terminal reads; or as entries of the journal."""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast

import structlog

from waguard.config.sections import Log
from waguard.core.plain_text import plain_data, plain_json
from waguard.observe.bus import Event
from waguard.observe.journal import Journal, entry, is_journal
from waguard.observe.patient import Patient
from waguard.system.repeats import Repeats


@contextmanager
def opened(settings: Log, stream: TextIO = sys.stderr) -> Iterator[Callable[[Event], None]]:
    """The bus's subscriber, for the length of a ``with`` block; what it is told never waits for who reads the log."""
    to_journal = settings.format == "journal" or (settings.format == "auto" and is_journal(stream))
    with Patient(stream, outlet=Journal(stream) if to_journal else None) as patient:
        yield configure(settings, patient, entries=to_journal)


def configure(
    settings: Log, stream: TextIO | Patient = sys.stderr, *, entries: bool = False
) -> Callable[[Event], None]:
    """Set up structlog on ``stream``, in lines or in ``entries`` of the journal; returns the bus's subscriber.

    A dead stream (a closed pipe, a full disk) silences the log and nothing else.
    """
    readable = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if readable
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    factory: Callable[..., Any] = structlog.WriteLoggerFactory(cast("TextIO", stream))
    if entries and isinstance(stream, Patient):
        renderer, logger = entry, _Entries(stream)
        factory = lambda *_: logger  # noqa: E731
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([_harmless] if readable else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    log = structlog.get_logger()

    def write(event: Event) -> None:
        # ``event`` is the name's own key.
        fields = {f"{key}_" if key == "event" else key: value for key, value in event.fields.items()}
        if event.client is not None:
            fields["client"] = event.client
        try:
            getattr(log, event.level)(event.name, **fields)
        except (OSError, ValueError):
            return

    _Libraries.divert(write)
    return write


def _json(event: Any, **options: Any) -> str:
    return plain_json(json.dumps(event, **options))


def _harmless(_logger: object, _method: str, event: Mapping[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", plain_data(event))


class _Entries:
    """What structlog takes for a logger."""

    def __init__(self, patient: Patient) -> None:
        self.debug = self.info = self.warning = self.error = patient.put


class _Libraries(logging.Handler):
    """What asyncio and aiohttp say goes the same way, as ``library.log``."""

    def __init__(self, write: Callable[[Event], None]) -> None:
        super().__init__(logging.WARNING)
        self._write = write
        self._repeats = Repeats(3)

    @classmethod
    def divert(cls, write: Callable[[Event], None]) -> None:
        root = logging.getLogger()
        for handler in [handler for handler in root.handlers if isinstance(handler, cls)]:
            root.removeHandler(handler)
        root.addHandler(cls(write))

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        # A stranger at the port, or the loop out of files, has them say the same a thousand times a second.
        left_out = self._repeats.left_out((record.name, record.msg, type(error)))
        if left_out is None:
            return
        fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
        if left_out:
            fields["left_out"] = left_out
        if error is not None:
            # No more than its kind where a request is at fault: the text quotes it, and a token may be in it.
            quotes = record.name.startswith("aiohttp")
            fields["error"] = type(error).__name__ if quotes else repr(error)
            # Where it was is said all the same: a mistake of ours may be behind it.
            trace = traceback.format_tb(error.__traceback__) if quotes else traceback.format_exception(error)
            fields["trace"] = "".join(trace)
        self._write(
            Event("library.log", "error" if record.levelno >= logging.ERROR else "warning", None, fields)
        )
