"""Hold everything inside a sandbox still for some milliseconds, so that its files can be copied as one. Blocking: call from a thread.

Should the daemon die meanwhile, the processes stay stopped; its successor ends them like any leftover.
"""

import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from waguard.errors import SnapshotFailed
from waguard.sandbox.identity import Handle, Identity
from waguard.system import host

_LOOK_MS = 1


@contextmanager
def frozen(members: Callable[[], Iterable[Identity]], deadline_s: float) -> Iterator[None]:
    """Stop them all, also those that are born meanwhile; every one is let go on at the end of the block.

    One that was stopped before stays so. Raises `SnapshotFailed` when they do not stand still in time, or one crashes.
    """
    deadline = time.monotonic() + deadline_s
    known: set[Identity] = set()
    still = 0
    with ExitStack() as stack:
        # Twice in a row: one that was about to stop during a look may have had a child behind the look's back.
        while still < 2:
            moving = [one for one in members() if not host.all_threads_stopped(one.pid)]
            still = 0 if moving else still + 1
            if time.monotonic() > deadline:
                raise SnapshotFailed(f"The browser could not be held still within {deadline_s:g} s.")
            fresh = [one for one in moving if one not in known]
            if any(host.crashing(one.pid) for one in fresh):
                # Its crash handler tells it by SIGCONT that it is done (`kDumpDoneSignal` of crashpad). One that hears that from us dies in the
                # middle of it, and then the whole browser waits for its end for ever: the handler, which traces it, never asks for it.
                if known:
                    raise SnapshotFailed(
                        "A process of the browser crashed meanwhile.", hint="Try again later."
                    )
                select.poll().poll(_LOOK_MS)
                continue
            for one in fresh:
                known.add(one)
                if (handle := Handle.open(one)) is not None:
                    stack.callback(handle.close)
                    stack.callback(handle.send, signal.SIGCONT)  # before it is closed
                    handle.send(signal.SIGSTOP)
            if moving and not fresh:
                select.poll().poll(_LOOK_MS)
        yield
