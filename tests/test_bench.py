"""The benches run and tell their figures; how good the figures are is not a test's business."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bare_browser import BINARY

BENCH = Path(__file__).parent.parent / "bench"
_ASYNC = "import asyncio, sys; sys.exit(asyncio.run(bench.main()))"
_FLOODS = "{'frames': [{'do': 'empty', 'count': 1000}]}"
_POSING = "(('real', 1), ('posing', 1), ('posing', 2))"
LEAN = {
    # Nothing takes the processors from the tests beside it: neither hogs, nor pages that work for half a minute each.
    "calm": (
        f"import calm as bench, contextlib; bench.STRETCH_S = bench.BUSY_AT_A_TIME = 0; bench.hogs = contextlib.nullcontext; {_ASYNC}",
        ("--sessions", "1", "--minutes", "0.05"),
    ),
    "connect": ("import connect as bench; bench.QUICK_TURNS = 2; bench.main()", ()),
    "control": (
        f"import control as bench; bench.QUICK_STEPS, bench.QUICK_WINDOW_S = (1, 2), 0.2; {_ASYNC}",
        (),
    ),
    "faults": (f"import faults as bench; {_ASYNC}", ("--only", "dropped")),
    "logouts": (f"import logouts as bench; {_ASYNC}", ("--sessions", "1", "--rounds", "1")),
    "probes": (
        f"import probes as bench; bench.CALM_S, bench.QUICK_STEPS = 0.5, {_POSING}; {_ASYNC}",
        ("--window", "1"),
    ),
    "profile": ("import profile as bench; bench.DATABASE_MB, bench.CACHES_MB = 2, 4; bench.main()", ()),
    "relay": (
        f"import relay as bench; bench.QUICK_ROUNDS, bench.QUICK_TRIPS, bench.QUICK_CALM_S, bench.QUICK_IDLE = 1, 20, 0.3, 1; bench.RESULT, bench.FLOODS = '1', {_FLOODS}; {_ASYNC}",
        (),
    ),
    "soak": (
        "import asyncio, soak as bench; bench.WARM, bench.QUICK_ROUNDS, bench.SETTLE_S = 1, 2, 1; asyncio.run(bench.main())",
        (),
    ),
    "start": ("import start as bench; bench.QUICK_ROUNDS = 1; bench.main()", ()),
}
"""Less than the figures need to be worth something: the program, and what it is given."""


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
@pytest.mark.parametrize("name", LEAN)
def test_a_bench_ends_with_figures_and_a_line_for_people(name: str, tmp_path: Path) -> None:
    if name == "relay" and shutil.which("npm") is None:
        pytest.skip("no npm is installed")
    program, more = LEAN[name]
    process = subprocess.run(
        [sys.executable, "-c", program, "--quick", "--json", str(tmp_path / name), *more],
        cwd=BENCH,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert process.returncode == 0, process.stdout
    told = json.loads((tmp_path / name).read_text())
    assert told["figures"]
    assert all(isinstance(value, int | float) for value in told["figures"].values())
    assert told["aims"].keys() <= told["figures"].keys()
    assert all(aim.keys() <= {"max", "min"} for aim in told["aims"].values())
    assert told["machine"]["cpus"]
    assert any(line.startswith(f"{name}: ") for line in process.stdout.splitlines())


def test_every_bench_is_tried() -> None:
    """But for `hostile`, which takes what time it is given."""
    benches = {path.stem for path in BENCH.glob("*.py") if path.read_text().startswith("#!")}
    assert benches - set(LEAN) == {"hostile"}
