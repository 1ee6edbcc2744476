"""The entry point, and nothing else: what could be interrupted is imported inside."""

import signal
import sys


def main() -> None:
    # timeout(1) and friends end a command as Ctrl-C does, so that the terminal gets its cursor back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from waguard.cli.app import app  # noqa: PLC0415 (Ctrl-C during half a second of imports is no traceback either)

        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a terminal that is not UTF-8
        app(prog_name="waguard")
    except KeyboardInterrupt:
        sys.exit(130)
