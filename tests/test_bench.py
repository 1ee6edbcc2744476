"""The benches run and tell their figures; how good the figures are is not a test's business."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bare_browser import BINARY

BENCH = Path(__file__).parent.parent / "bench"
_ASYNC = "import asyncio, sys; sys.exit(asyncio.run(bench.main()))"
LEAN = {
    "profile": "import profile as bench; bench.DATABASE_MB, bench.CACHES_MB = 6, 20; bench.main()",
    "probes": f"import probes as bench; bench.CALM_S = 0.5; {_ASYNC}",
    "calm": f"import calm as bench; bench.STRETCH_S = 3; {_ASYNC}",
}
"""Less than the figures need to be worth something."""

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")]


SHORTER = {
    "connect": (),
    "profile": (),
    "soak": (),
    "start": (),
    "probes": ("--window", "1"),
    "faults": ("--only", "dropped"),
    "calm": ("--sessions", "1", "--minutes", "0.1"),
    "logouts": ("--sessions", "1", "--rounds", "2"),
}


@pytest.mark.timeout(400)
def test_quick_benches_end_with_figures_and_a_line_for_people(tmp_path: Path) -> None:
    """Two at a time: what they measure is worth nothing here, but what they wait for has deadlines, and so have the tests beside them."""

    def run(name: str) -> "subprocess.CompletedProcess[str]":
        program = ("-c", LEAN[name]) if name in LEAN else (f"{name}.py",)
        command = [sys.executable, *program, "--quick", "--json", str(tmp_path / name), *SHORTER[name]]
        return subprocess.run(
            command,
            cwd=BENCH,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        ended = dict(zip(SHORTER, pool.map(run, SHORTER), strict=True))
    for name, process in ended.items():
        assert process.returncode == 0, process.stdout
        told = json.loads((tmp_path / name).read_text())
        assert told["figures"]
        assert all(isinstance(value, int | float) for value in told["figures"].values())
        assert told["aims"].keys() <= told["figures"].keys()
        assert all(aim.keys() <= {"max", "min"} for aim in told["aims"].values())
        assert told["machine"]["cpus"]
        assert any(line.startswith(f"{name}: ") for line in process.stdout.splitlines())
