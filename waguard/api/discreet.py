"""What a client's token is told of the daemon's host: no paths. The admin is told them. Pure."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from waguard.core.shown import QrView, UploadView

_PATH = re.compile(r"""(?<![\w./~-])(?:file://)?/(?:[^\s/'",:;()\[\]]+/)+(?P<name>[^\s/'",:;()\[\]]*)""")


def without_paths(told: Any) -> Any:
    """A view or a part of one without where the daemon keeps things: of a path its last part is left."""
    if isinstance(told, QrView | UploadView):
        return told  # what has to be scanned is base64, slashes and all; and an upload's path is none of the host
    if isinstance(told, str):
        return _PATH.sub(r".../\g<name>", told)
    if isinstance(told, Path):
        return without_paths(str(told))
    if isinstance(told, Mapping):
        return {key: without_paths(value) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [without_paths(one) for one in told]
    if is_dataclass(told):
        return {one.name: without_paths(getattr(told, one.name)) for one in fields(told)}
    return told
