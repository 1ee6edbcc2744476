"""The documentation keeps pace with the code: what is made from it is current, and no link leads nowhere."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from urllib.parse import urlsplit

from waguard.api.routes import ROUTES
from waguard.config.sections import Config
from waguard.core.catalogue import EVENTS
from waguard.core.health.faults import Fault
from waguard.core.model import Alert
from waguard.errors import BY_CODE
from waguard.simulator.faults import FAULTS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


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


def headings(page: str) -> list[str]:
    return re.findall(r"^#{1,6} (.+)$", (DOCS / page).read_text(), re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor of a heading, as the page that is built has it."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_each_trouble_has_its_heading() -> None:
    """So that a hint, a dashboard or a person can link to it."""
    found = headings("operations/troubleshooting.md")
    assert len({slug(one) for one in found}) == len(found)
    assert {f"`{one}`" for one in (*Fault, *Alert)} <= set(found)
    codes = {one.strip("`") for one in headings("reference/errors.md")}  # of each code: tests/test_errors.py
    named = {one.strip("`") for one in found if one.startswith("`")}
    assert named <= {*Fault, *Alert, *codes, *EVENTS}


def test_each_link_of_the_front_pages_leads_somewhere() -> None:
    """Those in docs/ are looked at by the build."""
    seen = 0
    for page in (*ROOT.glob("*.md"), ROOT / "sessions" / "README.md"):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                lines = re.findall(r"^#{1,6} (.+)$", target.read_text(), re.MULTILINE)
                assert anchor in map(slug, lines), f"{page.name}: {link}"
            seen += 1
    assert seen > 10


# --- what can be typed ------------------------------------------------------------------------------------------

FENCED = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md")), ROOT / "sessions" / "README.md"]
NAMED = re.compile(
    rf"`(?P<section>{'|'.join(Config.model_fields)})\.(?P<key>(?!js`|py`)[a-z_]+)(?: = [^`]+)?`"
)
VARIABLE = re.compile(r"\bWAGUARD_(?P<section>[A-Z]+)__(?P<key>[A-Z_]+)=")
OTHERS = {"sudo", "docker", "cd", "git", "pre-commit", "python", "for"}
"""Programs that are not ours; what they are given is not looked at."""


def fenced(kind: str) -> Iterator[tuple[str, str]]:
    """Each line of such a block, and where it is; a line that goes on is one with the next."""
    for page in PAGES:
        for block in FENCED.finditer(page.read_text()):
            if block["kind"] == kind:
                for line in block["body"].replace("\\\n", " ").splitlines():
                    if line.strip():
                        yield page.name, line


def typed() -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Each command of the documentation, with its variables."""
    for where, line in fenced("sh"):
        words = shlex.split(re.sub(r"^(\w+)=\$\((.*)\)", r"\2", line), comments=True)
        variables = dict(word.split("=", 1) for word in takewhile(re.compile(r"[A-Z_]+=").match, words))
        if command := words[len(variables) :]:
            yield where, variables, command


def test_each_command_is_one_that_there_is() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    seen = set()
    for where, _, (program, *words) in typed():
        name = Path(program).name
        seen.add(name)
        match name:
            case "make":
                assert words[0] in targets, f"{where}: make {words[0]}"
            case "waguard" | "sudo" | "curl":
                pass  # tests/test_hints.py, and below
            case _:
                assert name in OTHERS, f"{where}: {program}"
    assert {"make", "waguard", "curl", "docker", "sudo"} <= seen


def test_each_request_goes_to_a_route() -> None:
    known = {(one.method, re.sub(r"\{\w+\}", "[^/]+", one.path)) for one in ROUTES}
    phone = (ROOT / "waguard/simulator/control.py").read_text()
    asked = 0
    for where, _, (program, *words) in typed():
        if program != "curl":
            continue
        (url,) = [urlsplit(word) for word in words if word.startswith("http://127.0.0.1:")]
        body = words[words.index("--data") + 1] if "--data" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
        if url.port == Config().api.port:
            fits = [path for verb, path in known if verb == method and re.fullmatch(path, url.path)]
            assert fits, f"{where}: {method} {url.path}"
        else:
            assert f'"{url.path}"' in phone, f"{where}: {url.path}"
        if body is not None and body != "TEXT":
            given = json.loads(body)
            assert given.get("fault", "boot") in FAULTS
        asked += 1
    assert asked > 8


def test_each_setting_that_is_named_is_there() -> None:
    seen = 0
    for page in PAGES:
        # These have what was, and modules and the kernel's files, too.
        if page.name in {"CHANGELOG.md", "design.md"} or page.parent.name == "explanation":
            continue
        text = page.read_text()
        named = [(one["section"], one["key"]) for one in NAMED.finditer(text)]
        named += [(one["section"].lower(), one["key"].lower()) for one in VARIABLE.finditer(text)]
        for section, key in named:
            if f"{section}.{key}" not in EVENTS:
                assert key in type(getattr(Config(), section)).model_fields, f"{page.name}: {section}.{key}"
                seen += 1
    assert seen > 50


def test_each_answer_that_is_shown_is_one_that_is_given() -> None:
    """Every text in it stands in the route's own code, but for what is the caller's or the clock's."""
    source = (ROOT / "waguard/api/compat.py").read_text() + " ".join(BY_CODE)
    shown = [(where, json.loads(line)) for where, line in fenced("json")]
    assert len(shown) >= 3
    for where, answer in shown:
        texts = {one for one in answer.values() if isinstance(one, str)} - {"...", "demo"}
        for text in {*answer, *texts}:
            assert text in source, f"{where}: {text}"
