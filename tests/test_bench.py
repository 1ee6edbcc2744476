"""The benches run and tell their figures; how good the figures are is not a test's business."""

import json
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("name", "shorter"),
    [
        ("connect", ()),
        ("profile", ()),
        ("soak", ()),
        ("probes", ("--window", "1")),
        ("faults", ("--only", "dropped")),
        ("calm", ("--sessions", "1", "--minutes", "0.1")),
    ],
)
def test_a_quick_bench_ends_with_figures_and_a_line_for_people(
    name: str, shorter: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    program = ("-c", LEAN[name]) if name in LEAN else (f"{name}.py",)
    ended = subprocess.run(
        [sys.executable, *program, "--quick", "--json", file, *shorter],
        cwd=BENCH,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(file.read_text())
    assert told["figures"]
    assert all(isinstance(value, int | float) for value in told["figures"].values())
    assert told["aims"].keys() <= told["figures"].keys()
    assert all(aim.keys() <= {"max", "min"} for aim in told["aims"].values())
    assert told["machine"]["cpus"]
    assert ended.stdout.splitlines()[-1].startswith(f"{name}: ")
