"""The documentation keeps pace with the code: what is made from it is current, and no link leads nowhere."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_what_follows_from_the_code_is_current() -> None:
    check = [sys.executable, "scripts/reference.py", "--check"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_documentation_is_built_without_a_warning(tmp_path: Path) -> None:
    """Each page has its place in the navigation, and each link and anchor is there."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    result = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr
    built = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert 'href="https://fonts' not in built
    assert 'src="http' not in built
