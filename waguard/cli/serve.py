"""The commands that go on until they are stopped: the daemon, and the stand-in for WhatsApp Web."""

import asyncio
import gc
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from waguard.config.load import load


def run(
    ctx: typer.Context,
    *,
    check: Annotated[bool, typer.Option("--check", help="Only check whether it could start.")] = False,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C. SIGHUP restarts it and leaves the browsers up."""
    # What is imported stays: nobody looks through it for garbage, neither meanwhile nor while the daemon runs.
    gc.disable()
    from waguard import daemon  # noqa: PLC0415 (browsers and all: no other command needs it)
    from waguard.system.systemd import handing_over  # noqa: PLC0415 (likewise)

    gc.freeze()
    gc.enable()
    loaded = load(ctx.obj)
    if check:
        daemon.check(loaded)
    elif (inherited_fds := asyncio.run(daemon.serve(loaded))) is not None:
        environment = os.environ | handing_over(inherited_fds)
        os.execve(sys.executable, daemon.again(), environment)  # noqa: S606 (our own command line)


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8718,
    quick: Annotated[bool, typer.Option("--quick", help="QR codes rotate every few seconds.")] = False,
) -> None:
    """Serve a stand-in for WhatsApp Web, so that no phone is needed."""
    from waguard.simulator.server import Cadence, serve  # noqa: PLC0415 (no other command needs it)

    async def until_stopped() -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (this is one)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await serve("127.0.0.1", port, Cadence.QUICK if quick else Cadence.REAL, _introduce)

    asyncio.run(until_stopped())


def _introduce(url: str) -> None:
    typer.echo(f"""\
The simulated WhatsApp Web is at {url}

Point a daemon at it:    WAGUARD_WHATSAPP__URL={url} waguard run
Connect a client:        waguard connect demo
Scan, as its phone would:
  curl -s -H "Authorization: Bearer $(waguard token)" http://127.0.0.1:8717/v1/sessions/demo/qr |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])' |
    curl --data-binary @- {url}phone/scan
Linked devices:          curl {url}phone/devices
Write to its bot:        curl --data '{{"from": "5215550001111", "body": "Hello"}}' {url}phone/message
What was written:        curl {url}phone/messages
Faults there are:        curl {url}faults

Ctrl-C ends it.""")
