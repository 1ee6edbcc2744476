"""Which sandbox this machine allows."""

import os
from pathlib import Path
from typing import Literal

from waguard.core.model import Stage
from waguard.deadline import within
from waguard.errors import SandboxFailed, WaguardError
from waguard.fds import readable
from waguard.files import in_thread
from waguard.sandbox import Sandbox, Spec, User
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.sandbox.plain import Plain, become_subreaper

INSTALL_HINT = "Install it: apt-get install bubblewrap"
_TRIAL_S = 10.0


async def choose(
    kind: Literal["auto", "bubblewrap", "plain"], user: User | None
) -> tuple[Sandbox, str | None]:
    """The sandbox to use, and for ``auto`` why it is not bubblewrap. Raises `SandboxFailed` if bubblewrap is demanded and does not work."""
    if kind != "plain":
        program = await in_thread(Bubblewrap.find)
        problem = await bubblewrap_problem(program, user) if program else "bubblewrap is not installed."
        if program and problem is None:
            return Bubblewrap(program, user), None
        if kind == "bubblewrap":
            raise SandboxFailed(f"sandbox.kind is bubblewrap, but: {problem}", hint="Run: waguard doctor")
    else:
        problem = None
    become_subreaper()
    return Plain(user), problem


async def bubblewrap_problem(program: Path, user: User | None) -> str | None:
    """Make a sandbox like a browser's with `true` in it; says why it does not work, or nothing if it does."""
    error_read, error_write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    run = None
    try:
        run = Bubblewrap(program, user).start(
            Spec(["/usr/bin/true"], None, null, "trial", {}, {0: null, 1: null, 2: error_write})
        )
        os.close(error_write)
        error_write = -1
        async with within(Stage.START, _TRIAL_S, "trying bubblewrap"):
            await run.identify()
            run.release()
            ended = await run.exited()
        return None if ended == "exit code 0" else f"bubblewrap failed ({ended}): {await _text(error_read)}"
    except WaguardError as error:
        said = await _text(error_read) if error_write < 0 else ""
        return f"{error.message} {said}".strip()
    finally:
        if run is not None:
            await run.kill()
            run.close()
        for fd in (error_read, error_write, null):
            if fd >= 0:
                os.close(fd)


async def _text(fd: int) -> str:
    """What bubblewrap has said; it has ended, so this ends too."""
    await readable(fd)
    return os.read(fd, 4096).decode("utf-8", "replace").strip()
