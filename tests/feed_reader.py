"""Readers of the feed of events, as an app would have one: what comes, taken apart."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp


@dataclass(frozen=True, slots=True)
class Frame:
    """What ends with an empty line."""

    id: str | None = None
    event: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    comment: str = ""

    @classmethod
    def of(cls, lines: list[str]) -> Self:
        found: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            found[name] = value.removeprefix(" ")
        return cls(
            found.get("id"), found.get("event", ""), json.loads(found.get("data", "{}")), found.get("", "")
        )


class FeedReader:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.place: str | None = None
        """What it would come back with."""

    async def frame(self) -> Frame:
        """The next one, heartbeats too. Raises `EOFError` at the end."""
        lines: list[str] = []
        while line := (await self.response.content.readline()).decode():
            if line != "\n":
                lines.append(line.rstrip("\n"))
            elif lines and not lines[0].startswith("retry"):
                frame = Frame.of(lines)
                self.place = frame.id or self.place
                return frame
            else:
                lines = []
        raise EOFError

    async def next(self) -> Frame:
        """The next that tells something."""
        while not (frame := await self.frame()).event:
            pass
        return frame

    async def until(self, event: str, **data: Any) -> list[Frame]:
        """All up to one like this."""
        found: list[Frame] = []
        while True:
            found.append(await self.next())
            told = found[-1].data.get("fields", {})
            if found[-1].event == event and all(told.get(name) == value for name, value in data.items()):
                return found


@asynccontextmanager
async def reading(
    http: aiohttp.ClientSession, url: str, token: str | None, query: str = "", **headers: str
) -> AsyncIterator[FeedReader]:
    """One that has been told where the feed begins."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        named["Authorization"] = f"Bearer {token}"
    async with http.get(f"{url}/v1/events{query}", headers=named) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        reader = FeedReader(response)
        assert (await reader.next()).event == "feed.ready"
        yield reader
