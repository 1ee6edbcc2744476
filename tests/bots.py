"""Bots in node, unmodified clients of WhatsApp Web, that tell what they see and do what they are told."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from bare_browser import BINARY

LONG = bool(os.environ.get("WAGUARD_TEST_LONG"))
"""Whether bots work for minutes: 1,000 messages each way, 50 of them one after the other."""


class Bot:
    """Speaks lines of JSON with a script beside this file; each event that a test has waited for is gone."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.heard: list[dict[str, Any]] = []

    async def until(self, event: str, **values: Any) -> Any:
        """The first such event, heard already or not."""
        passed = 0
        async with asyncio.timeout(60):
            while True:
                for told in self.heard[passed:]:
                    if told["event"] == event and all(told[name] == value for name, value in values.items()):
                        self.heard.remove(told)
                        return told
                passed = len(self.heard)
                await self._hear()

    async def last(self, event: str) -> Any:
        """Of the events that it has told of so, the last one."""
        told = await self.until(event)
        while any(one["event"] == event for one in self.heard):
            told = await self.until(event)
        return told

    async def do(self, what: str, **values: Any) -> Any:
        """What has come of it."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(json.dumps({"do": what, **values}).encode() + b"\n")
        told = await self.until("done", of=what)
        return told["result"]

    async def _hear(self) -> None:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, f"it has ended; heard: {self.heard}"
        told = json.loads(line)
        assert told["event"] != "failed", told
        self.heard.append(told)


def bot(script: str, modules: Path, data: Path, flags: Sequence[str]) -> AbstractAsyncContextManager[Bot]:
    """With a browser of its own, whose login is kept in ``data``."""
    # The page refuses a browser whose client hints say that it is headless, and clients leave them as they are.
    args = ["--no-sandbox", "--disable-features=UserAgentClientHint", *flags]
    return running(script, modules, data, {"executablePath": str(BINARY), "args": args})


def running(
    script: str, modules: Path, data: Path, puppeteer: Mapping[str, Any]
) -> AbstractAsyncContextManager[Bot]:
    """With whatever browser puppeteer has by these options."""
    options = {"dataPath": str(data), "puppeteer": puppeteer}
    command = ("node", str(Path(__file__).with_name(script)), str(modules), json.dumps(options))
    return speaking(command, data.parent)  # it writes there, too


@asynccontextmanager
async def speaking(command: Sequence[str], place: Path) -> AsyncIterator[Bot]:
    """Any program that has the same words, in that directory."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=place, limit=64 << 20
    )
    assert process.stdin is not None
    try:
        yield Bot(process)
    finally:
        try:
            process.stdin.close()  # upon which it closes its browser
            async with asyncio.timeout(20):
                await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
