"""Files that were uploaded or downloaded and have outlived their time, and downloads that nobody finishes."""

from collections.abc import Iterator
from functools import partial

from waguard.core.model import client_code
from waguard.core.shown import Leftover
from waguard.errors import InvalidClientCode, NoSuchFile
from waguard.session.shelf import TRANSFER, Places, Shelf
from waguard.session.task import Session
from waguard.system.threads import Kind, in_thread
from waguard.upkeep.sweep import Proposal, Scene

_WHY = "its time is over"


def find(scene: Scene) -> Iterator[Proposal]:
    root = scene.config.sessions.dir
    for name in Places.codes(root):
        try:
            code = client_code(name)
        except InvalidClientCode:
            continue  # no directory of ours
        if code in scene.unread:
            continue
        session, places = scene.sessions.get(code), Places(root, code, scene.profiles.user)
        for shelf, where in ((places.uploads, "uploads"), (places.received, "received")):
            yield from _expired(scene, shelf, where, code, session)
        if (session is None or session.at_rest) and (left := places.unfinished()):
            finding = Leftover(
                "unfinished_download",
                f"{TRANSFER}/{code}/downloads",
                f"no browser writes these {len(left)}",
                "delete",
                code,
            )
            yield Proposal(finding, partial(_drop_unfinished, places, session))


def _expired(
    scene: Scene, shelf: Shelf, where: str, code: str, session: Session | None
) -> Iterator[Proposal]:
    keep_hours = scene.config.relay.files_keep_hours
    for kept in shelf.all():
        age_s = scene.now - kept.since
        if age_s >= keep_hours * 3600:
            evidence = f"it came {age_s / 3600:.1f} h ago, and is kept for {keep_hours:g} h"
            finding = Leftover(
                "expired_file", f"{TRANSFER}/{code}/{where}/{kept.id}", evidence, "delete", code
            )
            yield Proposal(finding, partial(_drop, shelf, where, kept.id, session))


async def _drop(shelf: Shelf, where: str, name: str, session: Session | None) -> str | None:
    try:
        if session is None:
            return "deleted" if await in_thread(shelf.drop, name, kind=Kind.COPIES) else None
        transfer = session.transfer
        await (transfer.uploads if where == "uploads" else transfer.downloads).drop(name, _WHY)
    except NoSuchFile:
        return None
    return "deleted"


async def _drop_unfinished(places: Places, session: Session | None) -> str | None:
    if session is not None and not session.at_rest:
        return None
    dropped = await in_thread(places.drop_unfinished, kind=Kind.COPIES)
    return f"{dropped} deleted" if dropped else None
