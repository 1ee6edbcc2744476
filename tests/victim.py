"""A daemon in a process of its own, to be killed."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from waguard.sandbox.identity import TOKEN_VARIABLE
from waguard.system import host

LIFE = """
import asyncio, json, os, signal, sys
from waguard import daemon
from waguard.config.sections import Config
from waguard.core.model import ClientCode
from waguard.observe.bus import Bus

die = sys.argv[2]
if die:
    from waguard.browser.launch import Browser
    spawn = Browser.spawn
    def last(*args):
        if die == "after-spawn":
            spawn(*args)
        os.kill(os.getpid(), signal.SIGKILL)
    Browser.spawn = last

async def main():
    bus = Bus()
    bus.subscribe(lambda event: print(event.name, event.client or "", flush=True))
    async with daemon.running(Config.model_validate(json.loads(sys.argv[1])), bus) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(ClientCode(code)) for code in sys.argv[3:]))
        print("all up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Victim:
    """A daemon in a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", sessions: Path) -> None:
        self._process = process
        self._sessions = sessions

    async def says(self, *lines: str) -> None:
        """Wait until it has said each."""
        missing = list(lines)
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            while missing:
                line = await asyncio.to_thread(self._process.stdout.readline)
                assert line, "it ended"
                if line.decode().strip() in missing:
                    missing.remove(line.decode().strip())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        return self._process.wait(20)

    def launches(self) -> dict[str, dict[str, Any]]:
        """What is on disk of each client's launch, if anything is."""
        found = {}
        for path in self._sessions.glob("*/session.json"):
            launch = json.loads(path.read_bytes())["launch"]
            if launch is not None:
                found[path.parent.name] = launch
        return found

    def processes(self) -> dict[str, set[int]]:
        """Living processes of each client, by an independent look: who carries its token, and all below."""
        rows = [row for row in host.process_table() if row.state not in "ZX"]
        families = {}
        for code, launch in self.launches().items():
            family = {
                row.pid
                for row in rows
                if host.environment_has(row.pid, f"{TOKEN_VARIABLE}={launch['token']}")
            }
            while more := {row.pid for row in rows if row.ppid in family and row.pid not in family}:
                family |= more
            families[code] = family
        return families
