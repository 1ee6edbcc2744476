"""Events as log lines on stderr: one JSON object a line, or readable where a terminal reads."""

import logging
import sys
from collections.abc import Callable
from typing import TextIO

import structlog

from waguard.config import Log
from waguard.events import Event


def configure(settings: Log, stream: TextIO = sys.stderr) -> Callable[[Event], None]:
    """Set up structlog on ``stream``; returns the bus's subscriber.

    A dead stream (a closed pipe, a full disk) silences the log and nothing else.
    """
    readable = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if readable
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    log = structlog.get_logger()

    def write(event: Event) -> None:
        fields = dict(event.fields)
        if event.client is not None:
            fields["client"] = event.client
        try:
            getattr(log, event.level)(event.name, **fields)
        except (OSError, ValueError):
            return

    return write
