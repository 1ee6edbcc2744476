"""The remedy for what is stopped, on real processes."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any, cast

import pytest
from processes import stop
from waiting import until

from waguard.core.health.faults import Fault
from waguard.core.health.plans import Remedy
from waguard.errors import PageFailed
from waguard.health.probes.census import RENDERER, Member
from waguard.health.remedies import Target, apply
from waguard.system import host

WAITS = (
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signals}); print(flush=True); signal.pause()"
)


@pytest.mark.parametrize(
    ("signals", "goes_on"),
    [("[]", True), ("[signal.SIGTRAP]", False), ("signal.valid_signals()", True)],
    ids=["stopped", "crashing", "blocks all"],
)
async def test_what_is_stopped_goes_on_but_for_one_that_crashes(signals: str, goes_on: bool) -> None:
    """That one waits for the same signal from its crash handler."""
    program = [sys.executable, "-c", WAITS.format(signals=signals)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            stop([process.pid])

            def row() -> host.ProcessRow:
                found = host.process_row(process.pid)
                assert found is not None
                return found

            async def members() -> Sequence[Member]:
                return [Member(row(), RENDERER)]

            target = Target(cast("Any", None), "", members, silent=False, click=str)
            if goes_on:
                await apply(Remedy.CONTINUE, Fault.PROCESS_STOPPED, target)
                await until(lambda: row().state == "S", "it goes on")
            else:
                with pytest.raises(PageFailed):
                    await apply(Remedy.CONTINUE, Fault.PROCESS_STOPPED, target)
                assert row().state == "T"
        finally:
            process.kill()
