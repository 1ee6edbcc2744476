"""What the control port shows of the settings of one client. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Origin = Literal["put", "file", "all"]


@dataclass(frozen=True, slots=True)
class SettingView:
    value: Any
    """Of a proxy `url`, `user` and `password_set`; never the password."""
    origin: Origin
    """`put`: at run time. `file`: in `[clients.CODE]` of the configuration. `all`: as for all clients."""


@dataclass(frozen=True, slots=True)
class SettingsView:
    client: str
    settings: Mapping[str, SettingView]
    """What holds, by key."""
    needs_restart: Sequence[str]
    """Keys that its browser, which runs, has otherwise: for it they hold from its next start on."""
    restarted: bool = False
    """Its browser is being started anew for these."""
