"""Settings of single clients: ``[clients.CODE]`` of the configuration, and what is put at run time; both have this form."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from waguard.config.shapes import LANGUAGE, AnyPath, Flags, Section, looks
from waguard.core.labels import LABEL, MOST_LABELS, Priority, check_label
from waguard.core.model import client_code
from waguard.errors import InvalidClientCode

_PROXY = r"(http|https|socks5)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?"
_MOST_BYTES = 255
"""Of a user and of a password, RFC 1929."""
Count = Annotated[int, Field(ge=0, le=1000)]
Limit = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Proxy(Section):
    """The way out of one client's browser."""

    url: Annotated[str, looks(pattern=_PROXY)]
    user: Annotated[str, Field(max_length=_MOST_BYTES)] = ""
    password: SecretStr | None = None
    password_file: AnyPath | None = None
    """Its first line is the password."""

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        if "@" in url:
            raise ValueError("must have no credentials: write user and password beside it")
        if not re.fullmatch(_PROXY, url) or not (urlsplit(url).port or 0) > 0:
            raise ValueError(
                'must be like "http://proxy.example:3128", "https://...:443" or "socks5://...:1080"'
            )
        return url.removesuffix("/")

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        password = self.password.get_secret_value() if self.password is not None else ""
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file exclude each other")
        if not self.user and (password or self.password_file is not None):
            raise ValueError("password needs user")
        if ":" in self.user:
            raise ValueError("user must have no colon, RFC 7617")
        if why := password_problem(password):
            raise ValueError(f"password {why}")
        return self

    def with_password_of(self, before: "Proxy | None") -> "Proxy":
        """With the password that it had before, if none is given and it is for the same user at the same place: elsewhere nobody gets it."""
        same = before is not None and (before.url, before.user) == (self.url, self.user)
        if before is None or not same or self.password is not None or self.password_file is not None:
            return self
        kept = {"password": before.password, "password_file": before.password_file}
        return self.model_copy(update=kept)


def password_problem(password: str) -> str:
    """What keeps a text from being a proxy's password; empty if nothing does."""
    if len(password.encode()) > _MOST_BYTES:
        return f"must have at most {_MOST_BYTES} bytes"
    return "must not contain control characters" if re.search(r"[\x00-\x1f\x7f]", password) else ""


def _is_zone(name: str) -> bool:
    """Whether this machine knows the time zone; where it knows none at all, any may be one. Blocking."""
    for one in (name, "UTC"):
        try:
            ZoneInfo(one)
        except (OSError, ValueError, LookupError):
            continue
        return one == name
    return True


class ClientSettings(Section):
    """What is set of one client; what is not, is as for all."""

    labels: Annotated[list[Annotated[str, looks(pattern=LABEL)]], Field(max_length=MOST_LABELS)] | None = None
    proxy: Proxy | None = None
    language: Annotated[str, Field(pattern=LANGUAGE)] | None = None
    time_zone: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$")] | None = None
    user_agent: str | None = None
    extra_flags: Flags | None = None
    memory_max_mb: Annotated[int, Field(ge=0)] | None = None
    priority: Literal["low", "normal", "high"] | None = None
    snapshots_scheduled: bool | None = None
    snapshots_keep_last: Annotated[int, Field(ge=1, le=1000)] | None = None
    snapshots_keep_daily: Count | None = None
    snapshots_keep_weekly: Count | None = None
    snapshots_keep_monthly: Count | None = None
    recycle_soft_memory_mb: Limit | None = None
    recycle_hard_memory_mb: Limit | None = None
    recycle_max_age_h: Limit | None = None

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: list[str] | None) -> list[str] | None:
        return None if labels is None else sorted({check_label(one) for one in labels})

    def given(self) -> Mapping[str, Any]:
        """What is set here, by key."""
        return {key: value for key, value in self if key in ClientSettings.model_fields and value is not None}

    def check_zone(self) -> None:
        """Blocking. Raises `ValueError`."""
        if self.time_zone is not None and not _is_zone(self.time_zone):
            raise ValueError(f'time_zone: {self.time_zone!r} is not one, like "Europe/Madrid"')


class Clients(Section):
    """``[clients.CODE]``: a table for each client that is to be another than the rest."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ClientSettings]

    @model_validator(mode="after")
    def _codes(self) -> Self:
        for code in self.all():
            try:
                client_code(code)
            except InvalidClientCode as error:
                raise ValueError(str(error)) from None
        return self

    def all(self) -> Mapping[str, ClientSettings]:
        return self.__pydantic_extra__ or {}

    def of(self, code: str) -> ClientSettings:
        return self.all().get(code, ClientSettings())


@dataclass(frozen=True, slots=True)
class Effective:
    """What holds for one client in the end."""

    labels: Sequence[str]
    proxy: Proxy | None
    language: str
    time_zone: str
    """Empty: the machine's."""
    user_agent: str
    extra_flags: Sequence[str]
    memory_max_mb: int
    priority: Priority
    snapshots_scheduled: bool
    snapshots_keep_last: int
    snapshots_keep_daily: int
    snapshots_keep_weekly: int
    snapshots_keep_monthly: int
    recycle_soft_memory_mb: float
    recycle_hard_memory_mb: float
    recycle_max_age_h: float

    def over(self, *layers: ClientSettings) -> "Effective":
        """With these laid over it, the last one on top."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        for layer in layers:
            held |= layer.given()
        return Effective(**{**held, "priority": Priority(held["priority"])})

    def check(self) -> None:
        """Raises `ValueError` for a combination that is impossible."""
        soft, hard, most = self.recycle_soft_memory_mb, self.recycle_hard_memory_mb, self.memory_max_mb
        if hard and soft > hard:
            raise ValueError(
                f"recycle_soft_memory_mb must not be larger than recycle_hard_memory_mb = {hard:g}"
            )
        if 0 < most < hard:
            raise ValueError(f"memory_max_mb must not be smaller than recycle_hard_memory_mb = {hard:g}")

    @property
    def launched_with(self) -> Mapping[str, Any]:
        """What a browser has for as long as it runs, as JSON has it, without any secret. Of a proxy only that there is one: which, is between it and us."""
        given = {key: getattr(self, key) for key in ("language", "time_zone", "user_agent", "memory_max_mb")}
        return {**given, "extra_flags": list(self.extra_flags), "proxy": self.proxy is not None}

    def needs_restart(self, launched_with: Mapping[str, Any]) -> Sequence[str]:
        """Keys for which a browser that was launched with those has to be started anew; one of an earlier version tells nothing of itself."""
        now = self.launched_with
        return [key for key in launched_with if key in now and launched_with[key] != now[key]]
