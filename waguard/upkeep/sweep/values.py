"""Values of apps whose time to live is over."""

from collections.abc import Iterator
from functools import partial

from waguard.core.shown import Leftover
from waguard.session.task import Session
from waguard.session.value_files import FOLDER, ValueFiles
from waguard.upkeep.sweep import Proposal, Scene


def find(scene: Scene) -> Iterator[Proposal]:
    for code, session in scene.sessions.items():
        if code in scene.unread:
            continue
        there = ValueFiles(scene.config.sessions.dir, code).look()
        if over := sum(one.is_over(scene.now) for one in there.values()):
            evidence = f"the time to live of {over} is over"
            finding = Leftover("expired_values", f"{code}/{FOLDER}", evidence, "delete", code)
            yield Proposal(finding, partial(_drop, session))


async def _drop(session: Session) -> str | None:
    dropped = await session.values.drop_over()
    return f"{dropped} deleted" if dropped else None
