"""Two clients with one login: their browsers would drive each other out."""

from collections.abc import Collection

from waguard.core.model import ClientCode
from waguard.errors import LoginInUse, StorageHangs
from waguard.profile import identity, login_files
from waguard.profile.generation import Place
from waguard.session.resources import Resources
from waguard.snapshots.packing import About
from waguard.snapshots.store import about_of
from waguard.system.threads import in_thread, working_for


class Twins:
    def __init__(self, resources: Resources) -> None:
        self._profiles = resources.profiles
        self._snapshots = resources.snapshots
        self._origin = login_files.origin_of(resources.config.whatsapp.url)

    async def refuse(
        self, code: ClientCode, about: About | None, names: Collection[str] = frozenset()
    ) -> None:
        """Raises `LoginInUse` if another client would come up with the login of a snapshot, or of these ``names``; `StorageHangs` if
        that cannot be told.
        """
        for other in await in_thread(self._profiles.codes):
            if other != code and await self._asked(ClientCode(other), about, frozenset(names)):
                raise LoginInUse(
                    f"It is the login of {other} already: two browsers with one login drive each other out.",
                    hint=f"Go on with {other}, or have it dropped there first: waguard cleanup {other}",
                    client=other,
                )

    async def _asked(self, code: ClientCode, about: About | None, names: frozenset[str]) -> bool:
        try:
            with working_for(code):
                return await in_thread(self._comes_up_with, code, about, names)
        except StorageHangs as error:  # without the name, which is not the caller's to know
            raise StorageHangs(
                "Whether another client has this login already cannot be told: a disk does not answer.",
                **error.details,
            ) from None

    def _comes_up_with(self, code: ClientCode, about: About | None, names: frozenset[str]) -> bool:
        place, profile = self._profiles.find(code)
        if profile is None:
            return False
        if place is Place.PLAIN and (its := identity.read(profile.path, self._origin)) is not None:
            return bool(its & names) or self._snapshots.is_of(about, its)
        newest = [one.about for one in self._snapshots.candidates(code, profile.lineage, self._origin)[:1]]
        return any(
            self._snapshots.is_of(one, names)
            or bool(one and about and set(one.identity) & set(about.identity))
            for one in (about_of(profile.sealed), *newest)
        )
