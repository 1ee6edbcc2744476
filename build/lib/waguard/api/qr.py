"""A QR code as the caller likes it."""

import io
from collections.abc import Callable
from typing import Any

import segno

from waguard.core.shown import QrView


def png(view: QrView) -> bytes:
    return _saved(view, kind="png", scale=6)


def svg(view: QrView) -> bytes:
    return _saved(view, kind="svg", scale=6, light="white")


def text(view: QrView, quiet: int = 2) -> bytes:
    """For a terminal: half blocks that draw the light parts, with a quiet zone of so many modules."""
    out = io.StringIO()
    _code(view).terminal(out=out, compact=True, border=quiet)
    return out.getvalue().encode()


FORMATS: dict[str, Callable[[QrView], bytes]] = {"image/png": png, "image/svg+xml": svg, "text/plain": text}


def _code(view: QrView) -> segno.QRCode:
    # WhatsApp's own code has the lowest error correction too: fewer modules, easier to scan.
    return segno.make(view.text, error="l", micro=False)


def _saved(view: QrView, **options: Any) -> bytes:
    out = io.BytesIO()
    _code(view).save(out, border=4, **options)
    return out.getvalue()
