"""Which sandbox this machine allows."""

import os
import secrets
from pathlib import Path
from typing import Literal

from waguard.core.model import Stage
from waguard.errors import LimitReached, SandboxFailed, WaguardError
from waguard.sandbox import Run, Sandbox, Spec, User
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.sandbox.fence import Fence
from waguard.sandbox.plain import Plain, become_subreaper
from waguard.system import shortage
from waguard.system.deadline import within
from waguard.system.threads import Kind, in_thread

INSTALL_HINT = "Install it: apt-get install bubblewrap"
_TRIAL_S = 10.0


async def choose(
    kind: Literal["auto", "bubblewrap", "plain"],
    user: User | None,
    fence: Fence | None = None,
    etc: Path | None = None,
) -> tuple[Sandbox, str | None]:
    """The sandbox to use, and for ``auto`` why it is not bubblewrap. Raises `SandboxFailed` if bubblewrap is demanded and does not work.

    ``etc`` is an `Etc`'s. With the fence if it works with it: a bubblewrap that is setuid does not.
    """
    if kind != "plain":
        problem: str | None = "bubblewrap is not installed."
        if program := await in_thread(Bubblewrap.find, kind=Kind.MACHINE):
            for one in dict.fromkeys((fence, None)):
                if (problem := await bubblewrap_problem(program, user, one)) is None:
                    return Bubblewrap(program, user, one, etc), None
        if kind == "bubblewrap":
            raise SandboxFailed(f"sandbox.kind is bubblewrap, but: {problem}", hint="Run: waguard doctor")
    else:
        problem = None
    become_subreaper()
    return Plain(user, fence, problem or ""), problem


async def bubblewrap_problem(program: Path, user: User | None, fence: Fence | None = None) -> str | None:
    """Make a sandbox like a browser's with `true` in it; says why it does not work, or nothing if it does."""
    error_read, error_write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    fds = {0: null, 1: null, 2: error_write}
    try:
        run = Bubblewrap(program, user, fence).start(
            Spec(["/usr/bin/true"], None, null, secrets.token_hex(16), {}, fds)
        )
        try:
            async with within(Stage.START, _TRIAL_S, "trying bubblewrap", setting=""):
                problem = await _trial(run)
        except WaguardError as error:
            problem = error.message
        finally:
            async with within(Stage.KILL, _TRIAL_S, "ending the trial of bubblewrap", setting=""):
                await run.kill()
            run.close()
        os.set_blocking(error_read, False)
        said = await in_thread(_text, error_read, kind=Kind.MACHINE)
    except LimitReached:  # it may work in a moment, and the other one is for the daemon's life
        raise
    except WaguardError as error:
        return error.message
    finally:
        for fd in (error_read, error_write, null):
            os.close(fd)
    if problem is not None and (limit := shortage.of_last_words([said])) is not None:
        raise limit
    return None if problem is None else f"{problem} {said}".strip()


async def _trial(run: Run) -> str | None:
    await run.identify()
    run.release()
    ended = await run.exited()
    return None if ended == "exit code 0" else f"bubblewrap failed ({ended})."


def _text(fd: int) -> str:
    """What bubblewrap has said; it is gone."""
    try:
        return os.read(fd, 4096).decode("utf-8", "replace").strip()
    except BlockingIOError:
        return ""
