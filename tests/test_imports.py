"""Imports point one way, each third party has its one place, and some calls have none at all."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

import waguard

ROOT = Path(waguard.__file__).parent
STANDARD = sys.stdlib_module_names

# From the bottom up. A room may import what is below it, never what is above, and not what is beside it.
CORE = ("errors", "core")
STOREYS = (
    CORE,
    ("system",),
    ("schedule",),
    ("config",),
    ("observe",),
    ("history", "sandbox", "whatsapp", "access", "audit"),
    ("browser", "profile", "webhooks"),
    ("admission", "snapshots", "health", "relay"),
    ("session",),
    ("upkeep",),
    ("supervisor",),
    ("api",),
    ("daemon",),
    ("asking",),
    ("cli", "client", "__main__"),
)
OF_A_SESSION = (
    *(
        "tenure",
        "registry",
        "memory",
        "custody",
        "ladder",
        "resources",
        "pipes",
        "lease",
        "instance",
        "way_out",
        "shelf",
        "uploads",
        "downloads",
        "transfer",
        "value_files",
        "values",
        "left_running",
        "driving",
        "login",
        "enclosure",
    ),
    *("copies", "ending", "undo", "launch", "handover", "cleanup"),
    *("inbox", "crew", "plans", "usage", "visit", "opening", "probing", "reading", "curing", "watch"),
    *("start", "announcer", "task", "sessions"),
)
"""From the bottom up, inside that room."""
APART = ("simulator",)
"""A program of its own that ships with the daemon; nothing of the daemon knows it, but for the edges."""

PLACES: Mapping[str, tuple[str, ...]] = {
    "psutil": ("system/host.py",),
    "tomli": ("config/",),
    "structlog": ("observe/", "api/app.py"),
    "wsproto": ("api/websocket.py",),
    "segno": ("api/qr.py", "simulator/server.py"),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "aiohttp": ("api/", "client/", "daemon.py", "simulator/", "webhooks/sender.py"),
    "pyppeteer": ("client/page.py", "client/client.py"),
    "yarl": ("client/wire.py",),
    "cryptography": ("snapshots/seal.py", "browser/authorities.py"),
    "zstandard": ("snapshots/",),
    "google_crc32c": ("profile/",),
    "joserfc": ("access/jwts.py",),
    "pydantic": (
        "config/",
        "session/registry.py",
        "session/value_files.py",
        "schedule/runner.py",
        "history/database.py",
        "profile/witness.py",
        "snapshots/packing.py",
        "access/",
        "webhooks/store.py",
        "api/",
        "asking/",
        "simulator/",
        "cli/",
    ),
    "cronsim": ("schedule/rule.py",),
}


def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything in the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("waguard", *parts)).removesuffix(".__init__")] = path
    return found


MODULES = modules()


@cache
def trees() -> Mapping[str, ast.Module]:
    """Parsed where a test wants them: whoever collects the tests has no use for them."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported(name: str) -> Iterator[tuple[str, int]]:
    """What a module imports, anywhere in it, by full name and line."""
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else node.module), node.lineno


def for_types_only(name: str) -> set[int]:
    """Lines below ``if TYPE_CHECKING:``, which never run."""
    return {
        inner.lineno
        for node in ast.walk(trees()[name])
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in node.body
    }


def room(name: str) -> str:
    """``waguard.browser.pipe`` is in the room ``browser``."""
    return name.split(".")[1] if "." in name else ""


def storey(name: str) -> int:
    return next(number for number, rooms in enumerate(STOREYS) if room(name) in rooms)


OURS = {
    name: [(to, line) for to, line in imported(name) if to.split(".")[0] == "waguard"] for name in MODULES
}
OTHERS = {
    name: [
        (to, line)
        for to, line in imported(name)
        if to.split(".")[0] not in STANDARD and to.split(".")[0] != "waguard"
    ]
    for name in MODULES
}


def test_every_room_has_its_storey() -> None:
    known = {room for rooms in STOREYS for room in rooms} | {*APART, ""}
    assert {room(name) for name in MODULES} <= known


def test_imports_point_one_way() -> None:
    wrong = [
        f"{name}:{line} imports {to}"
        for name, imports in OURS.items()
        for to, line in imports
        if name != "waguard" and room(to) and room(name) not in APART and room(to) not in APART
        if storey(to) > storey(name)
        or (storey(to) == storey(name) and room(to) != room(name) and room(name) not in {*CORE, "__main__"})
    ]
    assert not wrong


def test_inside_a_session_too() -> None:
    place = {f"waguard.session.{name}": number for number, name in enumerate(OF_A_SESSION)}
    assert {*place, "waguard.session"} == {name for name in MODULES if room(name) == "session"}
    wrong = [
        f"{name}:{line} imports {to}"
        for name in place
        for to, line in OURS[name]
        if to in place and place[to] > place[name]
    ]
    assert not wrong


def test_the_core_imports_nothing_but_itself() -> None:
    wrong = [
        f"{name}:{line} imports {to}"
        for name in MODULES
        if room(name) in CORE
        for to, line in (*OURS[name], *OTHERS[name])
        if room(to) not in CORE
    ]
    assert not wrong


def test_the_core_has_no_clock_and_touches_nothing() -> None:
    world = {
        "asyncio",
        "os",
        "pathlib",
        "subprocess",
        "socket",
        "threading",
        "time",
        "random",
        "secrets",
        "io",
    }
    wrong = [
        f"{name}:{line} imports {to}"
        for name in MODULES
        if room(name) in CORE
        for to, line in imported(name)
        if to.split(".")[0] in world
    ]
    assert not wrong


def test_only_the_edges_know_the_simulator() -> None:
    wrong = [
        f"{name}:{line} imports {to}"
        for name, imports in OURS.items()
        for to, line in imports
        if room(to) in APART and room(name) not in {*APART, "cli"}
    ]
    assert not wrong
    above = {"session", "upkeep", "supervisor", "daemon", "api"}
    wrong = [
        f"{name}:{line} imports {to}"
        for name in MODULES
        if room(name) in APART
        for to, line in OURS[name]
        if room(to) in above
    ]
    assert not wrong


def test_there_are_no_cycles() -> None:
    seen: dict[str, int] = {}  # 1: on the way, 2: done

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert seen.get(name) != 1, " -> ".join((*way[way.index(name) :], name))
        if name in seen:
            return
        seen[name] = 1
        unreal = for_types_only(name)
        for to, line in OURS[name]:
            if to not in (name, "waguard") and line not in unreal:
                visit(to, (*way, name))
        seen[name] = 2

    for name in MODULES:
        visit(name, ())
    assert len(seen) == len(MODULES)


@pytest.mark.parametrize("part", PLACES)
def test_a_third_party_has_its_one_place(part: str) -> None:
    wrong = [
        f"{name}:{line} imports {to}"
        for name, imports in OTHERS.items()
        for to, line in imports
        if to.split(".")[0] == part and not str(MODULES[name].relative_to(ROOT)).startswith(PLACES[part])
    ]
    assert not wrong


def test_no_other_third_party_is_imported() -> None:
    unknown = {to.split(".")[0] for imports in OTHERS.values() for to, _ in imports} - set(PLACES)
    assert not unknown, "give it a place in PLACES"


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call as (where, node, dotted name of what is called)."""
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield f"{name}:{node.lineno}", node, ast.unparse(node.func)


TOKEN = "0123456789abcdef"
DAEMONS = {
    f"waguard.{room}" for room in ("admission", "browser", "health", "session", "upkeep", "supervisor")
}
DAEMONS |= {
    "waguard.daemon",
    "waguard.cli.doctor",
    "aiohttp",
    "cryptography",
    "psutil",
    "pyppeteer",
    "zstandard",
}
LOOKED = DAEMONS | {"structlog", "segno", "tarfile", "google_crc32c", "waguard.profile", "waguard.cli.follow"}
CONFIGURED = LOOKED | {"rich", "http.client", "waguard.core.shown"}
NOTHING = CONFIGURED | {"pydantic", "waguard.config"}


@pytest.mark.parametrize(
    ("command", "without"),
    [
        (("--version",), NOTHING),
        (("config", "check"), CONFIGURED),
        (("token",), CONFIGURED),
        (("completion", "codes"), CONFIGURED),
        (("status", "--url", "http://127.0.0.1:1"), LOOKED),
        (("snapshots", "demo", "--url", "http://127.0.0.1:1"), DAEMONS),
        (("connect", "demo", "--url", "http://127.0.0.1:1"), DAEMONS),
        (("--help",), DAEMONS),
    ],
)
def test_a_command_loads_only_what_it_needs(command: Sequence[str], without: set[str]) -> None:
    """Each import is time that whoever types the command waits."""
    own = {"WAGUARD_CONFIG": os.devnull, "WAGUARD_TOKEN": TOKEN, "WAGUARD_API__ADMIN_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "waguard", *command],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    loaded = set(re.findall(r"(?m)^import time:.*\| +(\S+)$", done.stderr))
    assert "waguard.cli.app" in loaded
    assert not without & loaded


def test_no_name_of_a_files_own_is_left_over() -> None:
    """What has moved has taken its constants along."""
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text()
        own = [
            target.id
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and re.match("_[A-Za-z]", target.id)
        ]
        assert [name for name in own if len(re.findall(rf"\b{name}\b", text)) == 1] == [], path


def test_nothing_goes_through_a_shell() -> None:
    shells = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
    shells |= {"asyncio.create_subprocess_shell", "os.spawnl", "os.execl"}
    wrong = [where for where, _, called in calls() if called in shells or called.endswith("subprocess_shell")]
    wrong += [where for where, node, _ in calls() if any(keyword.arg == "shell" for keyword in node.keywords)]
    assert not wrong


def test_nobody_sleeps_in_a_thread_or_kills_by_name() -> None:
    wrong = [where for where, _, called in calls() if called in {"time.sleep", "sleep"}]
    texts = [
        f"{name}:{node.lineno}"
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.split()[:1] in (["pkill"], ["killall"])
    ]
    assert not wrong + texts


def test_signals_are_sent_by_handle_alone() -> None:
    """A pid is half an identity. `spawn` may: a child that is not collected still owns its pid."""
    killers = {"os.kill", "os.killpg", "signal.pidfd_send_signal", "signal.pthread_kill"}
    where = {place.partition(":")[0] for place, _, called in calls() if called in killers}
    assert where <= {"waguard.sandbox.identity", "waguard.sandbox.spawn"}


def test_what_a_browser_could_have_made_is_opened_by_files_alone() -> None:
    """By `files.Below`, which waits for nobody and follows no link; of our own making are new files, and locks."""
    readers = (
        *(
            "waguard.profile",
            "waguard.snapshots",
            "waguard.session",
            "waguard.upkeep",
        ),
        *(
            "waguard.schedule",
            "waguard.system.sqlite",
            "waguard.audit",
            "waguard.access",
        ),
    )
    opening = {"open", "read_bytes", "read_text", "copyfile", "copy", "copy2", "copytree", "fdopen", "link"}
    harmless = {
        "tarfile.open",
        "_Tar.open",
        "os.fdopen",
        "self._open",
        "page.open",
        "self._watch.open",
        "session.copies.copy",
        "self._custody.copy",
        "self._instance.custody.copy",
    }
    wrong = [
        f"{where} {called}"
        for where, node, called in calls()
        if where.startswith(readers)
        and called.rpartition(".")[2] in opening
        and called not in harmless
        and not any(flag in ast.unparse(node) for flag in ("os.O_EXCL", "os.O_NOFOLLOW"))
    ]
    assert wrong == []


def test_what_the_tests_are_blind_to() -> None:
    """The look itself works: it sees imports inside functions, and names what it found."""
    assert ("psutil", "waguard.system.host") in {
        (to, name) for name, found in OTHERS.items() for to, _ in found
    }
    assert "waguard.core.session.table" in {to for to, _ in OURS["waguard.session.task"]}
    assert (
        storey("waguard.core.session.table")
        < storey("waguard.system.files")
        < storey("waguard.session.task")
        < storey("waguard.api")
    )


def test_whoever_drives_no_page_loads_no_driver() -> None:
    looked = "import sys, waguard.client; print(*{'pyppeteer', 'waguard.api', 'waguard.config'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", looked], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""


def test_the_daemon_loads_no_driver() -> None:
    """They are for apps (`waguard.client`), and cost memory and, with what they need, known faults."""
    # All that it could come to load, also when it is asked for something.
    parts = [
        name
        for name in MODULES
        if room(name) not in {"client", "simulator"} and not name.endswith("__main__")
    ]
    drivers = {"pyppeteer", "playwright", "urllib3", "websockets", "tqdm"}
    looked = f"import sys, {', '.join(parts)}; print(*{drivers} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", looked], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
