"""The container recipe, as far as it can be tried without a container: what is built from, what is allowed, how health is asked."""

import asyncio
import json
import os
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from checkout import ROOT, text

from waguard.cli import layout


def profile() -> dict[str, Any]:
    found = json.loads(text("container/seccomp.json"))
    assert isinstance(found, dict)
    return found


def test_the_seccomp_profile_is_what_the_unit_says() -> None:
    try:
        version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("there is no systemd-analyze")
    if not version.stdout.startswith("systemd 252 "):
        pytest.skip("another systemd has other sets of calls")
    made = subprocess.run(
        [ROOT / "container" / "seccomp.py", "--print"], capture_output=True, text=True, check=True
    )
    assert json.loads(made.stdout) == profile(), "make it anew: container/seccomp.py"


def test_the_seccomp_profile_allows_sandboxes_and_not_the_host() -> None:
    rules = profile()["syscalls"]
    plain = set(rules[0]["names"])
    assert plain >= {"execve", "mount", "umount2", "pivot_root", "chroot", "capset"}
    assert not plain & {"clone", "clone3", "unshare", "setns"}, "only with a look at their flags"
    host = "bpf perf_event_open ptrace kexec_load init_module reboot swapon settimeofday open_by_handle_at"
    assert not plain & set(host.split())


def test_no_login_gets_into_the_image() -> None:
    lines = [line for line in text(".dockerignore").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let = {line.removeprefix("!") for line in lines if line.startswith("!")}
    build = runpy.run_path(str(ROOT / "deb" / "build.py"))
    needed = ["setup.py", "pyproject.toml", "requirements.lock", "config.toml", *build["DOCS"], build["VEX"]]
    assert let == {"waguard", "deb", "systemd", *(name.split("/")[0] for name in needed)}
    assert all((ROOT / name).exists() for name in let)
    assert layout.SESSIONS.is_relative_to(
        re.findall(r"^VOLUME (\S+)$", text("container/Dockerfile"), re.MULTILINE)[0]
    )


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1), (None, 1)])
async def test_the_health_check_asks_whether_it_lives(status: int | None, exit_code: int) -> None:
    (check,) = re.findall(r"^HEALTHCHECK .*\n +CMD (\[.+\])$", text("container/Dockerfile"), re.MULTILINE)
    command = json.loads(check)
    if not Path(command[0]).exists():
        pytest.skip(f"there is no {command[0]}")

    async def livez(_request: web.Request) -> web.Response:
        assert status is not None
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/livez", livez)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        if status is None:
            await site.stop()
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "WAGUARD_API__PORT": str(port)}, stderr=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == exit_code
    finally:
        await runner.cleanup()
