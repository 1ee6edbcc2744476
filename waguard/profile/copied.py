"""What a copy of the sessions has made of a client's link, mended. Blocking: call from a thread."""

import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from waguard.core.model import ClientCode
from waguard.errors import ProfileNotFound
from waguard.profile.generation import COPY, DROPPED, GENERATION, lineage_of, new_generation
from waguard.profile.store import Profiles
from waguard.system.files import Below, as_storage_error


def mend_link(
    profiles: Profiles,
    code: ClientCode,
    generation: str,
    lineages: Callable[[], Sequence[str]],
    *,
    has_login: bool,
) -> str:
    """See to it that the code's link is one, after a copy that has left it out, followed it, or made a file of it; what was
    wrong, empty if nothing was.

    ``generation`` is what it pointed at, as far as is known; ``lineages`` are those of the client's snapshots, the newest
    first. Raises `ProfileNotFound` if there is a login and nobody knows where.
    """
    link = Below(profiles.root, f"{code}/profile")
    with as_storage_error(f"mend {link.path}"):
        status = link.status()
        if status is not None and stat.S_ISLNK(status.st_mode):
            return ""
        known = generation or _named_in(link)
        if not known and (has_login or status is not None):
            known = _likely(profiles, lineages())
        if status is None:
            return _missing(profiles, code, known, has_login=has_login)
        if not (known or has_login or lineages()):
            return ""  # no directory of ours
        if stat.S_ISDIR(status.st_mode):
            return _followed(profiles, code, known or new_generation(*lineages()[:1]))
        if has_login and not known:
            raise _nowhere(link.path, "no link")
        link.path.replace(link.path.with_name(f"profile.{secrets.token_hex(4)}.unreadable"))
        if known:
            profiles.point(code, profiles.profile(known))
        return "it was no link but a file"


def _missing(profiles: Profiles, code: ClientCode, known: str, *, has_login: bool) -> str:
    link = profiles.root / code / "profile"
    if not known and has_login:
        raise _nowhere(link, "gone")
    # Whoever died between the two steps of `retire`, or in the middle of a cleanup, had dropped it.
    if not known or any(one.generation == known and one.reason in DROPPED for one in profiles.aside.all()):
        return ""
    profiles.point(code, profiles.profile(known))
    return "it was gone"


def _followed(profiles: Profiles, code: ClientCode, known: str) -> str:
    """What a copy that follows links makes: the profile twice, or once where the link was."""
    link, profile = profiles.root / code / "profile", profiles.profile(known)
    if profile.path.is_dir():
        link.rename(profiles.aside.places[0] / f"{code}.{new_generation(profile.lineage)}.{COPY}")
    else:
        link.rename(profile.path)
    profiles.point(code, profile)
    return "it was no link but a directory, as of a copy that follows links"


def _named_in(link: Below) -> str:
    """What a copy has written down instead of a link."""
    try:
        name = PurePosixPath(link.data(4096).decode(errors="replace").strip()).name
    except OSError:
        return ""
    return name if GENERATION.fullmatch(name) else ""


def _likely(profiles: Profiles, lineages: Sequence[str]) -> str:
    """The newest profile of those that the client's snapshots were taken of."""
    found = [one for one in profiles.generations() if lineage_of(one) in lineages]
    there = [one for one in found if (it := profiles.profile(one)).path.is_dir() or it.sealed.is_file()]
    return max(there, key=lambda one: (-lineages.index(lineage_of(one)), one), default="")


def _nowhere(link: Path, what: str) -> ProfileNotFound:
    return ProfileNotFound(
        f"{link} is {what}, its client has a login, and where that is nobody knows. Nothing was started in its place.",
        hint=f"If you know which of .profiles it was: ln -sfn ../.profiles/GENERATION {link}. To give the login up: rm -r {link.parent}. "
        "Then restart the daemon.",
    )
