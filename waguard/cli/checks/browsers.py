"""What browsers run as, in which sandbox, and whether the installed one loads a page there."""

import asyncio
import os
import subprocess
from pathlib import Path

from waguard.browser import find, trial
from waguard.cli.checks import Grade, Seen, user_name
from waguard.config.sections import Config
from waguard.errors import SandboxFailed, WaguardError
from waguard.sandbox import choose, drop_privileges, unprivileged_user
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.sandbox.fence import Fence

_TRIAL_S = 10.0
_LAST_WORDS = 3
"""Lines of what a browser wrote that are shown."""
_OTHER_BROWSER = (
    "Fix what it reports, or try another: apt-get install chromium-headless-shell, or browser.path"
)
_SYSCTL = Path("/proc/sys")
_CONTAINER = "In a container: allow namespaces (docker run: --security-opt, --cap-add)"


def user(config: Config) -> Seen:
    browsers = unprivileged_user(config.browser.user, config.sessions.dir.absolute())
    if browsers is None:
        return Seen(f"browsers run as {user_name(os.geteuid())}, like the daemon")
    setpriv = drop_privileges(browsers)[0]
    if not os.access(setpriv, os.X_OK):
        what = f"no {setpriv}: root cannot start browsers as {browsers.name}"
        return Seen(what, Grade.PROBLEM, "apt-get install util-linux")
    if browsers.name == "nobody":
        return Seen(
            "browsers run as nobody, which other services may be too",
            Grade.WARNING,
            "useradd --system --home-dir /var/lib/waguard --shell /usr/sbin/nologin waguard",
        )
    return Seen(f"browsers run as {browsers.name}, by {setpriv}")


def browser(config: Config) -> Seen:
    """That it tells its version says little: it has to load a page, in the sandbox that it would have."""
    path = find.locate(config.browser.path)
    binary = asyncio.run(find.probe(path, _TRIAL_S))
    note = "" if binary.headless_only else "; chromium-headless-shell would take less than half the memory"
    try:
        kind = asyncio.run(_load_a_page(config, binary))
    except WaguardError as error:
        said = "; ".join(error.details.get("stderr", ())[-_LAST_WORDS:]) or "nothing"
        return Seen(
            f"{path}, {binary.version} loads no page: {error.message} It reports: {said}",
            Grade.PROBLEM,
            error.hint if isinstance(error, SandboxFailed) else _OTHER_BROWSER,
        )
    return Seen(f"{path}, {binary.version}, loads a page in {kind}{note}")


async def _load_a_page(config: Config, binary: find.Binary) -> str:
    """Of a server of our own. The kind of sandbox it was in."""
    user = unprivileged_user(config.browser.user, config.sessions.dir.absolute())
    async with trial.page() as port:
        fence = Fence.make({*config.sandbox.connect_ports, port} if config.sandbox.connect_ports else ())
        try:
            kind, _ = await choose.choose(config.sandbox.kind, user, fence)
            await trial.load(kind, user, binary, config.browser, port, _TRIAL_S + config.deadlines.start)
        finally:
            fence.close()
    return kind.kind


def bubblewrap(config: Config) -> Seen:
    if config.sandbox.kind == "plain":
        return Seen('not used: sandbox.kind is "plain"')
    lack = Grade.PROBLEM if config.sandbox.kind == "bubblewrap" else Grade.WARNING
    instead = "" if lack is Grade.PROBLEM else "; plain is used instead, without namespaces"
    program = Bubblewrap.find()
    if program is None:
        return Seen(f"not installed{instead}", lack, choose.INSTALL_HINT)
    browsers = unprivileged_user(config.browser.user, config.sessions.dir.absolute())
    problem = asyncio.run(choose.bubblewrap_problem(program, browsers))
    if problem is not None:
        # Root needs no user namespace for it.
        hint = (_allow_namespaces() if browsers is None else "") or _CONTAINER
        return Seen(f"{program} does not work: {problem}{instead}", lack, hint)
    return Seen(f"{program} works")


def user_namespaces(config: Config) -> Seen:
    """Chromium's own sandbox is made of them. Tried for real; the kernel's settings only say why not."""
    browsers = unprivileged_user(config.browser.user, config.sessions.dir.absolute())
    become = drop_privileges(browsers) if browsers is not None else []
    trial = subprocess.run(
        [*become, "unshare", "--user", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TRIAL_S,
        check=False,
    )
    if trial.returncode == 0:
        return Seen("work unprivileged")
    what = f"do not work unprivileged: {trial.stderr.strip()}"
    hint = _allow_namespaces() or _CONTAINER
    if config.browser.chromium_sandbox:
        return Seen(what, Grade.PROBLEM, f"{hint}. Or set browser.chromium_sandbox = false")
    return Seen(f"{what}; not used: browser.chromium_sandbox is false", Grade.WARNING, hint)


def _allow_namespaces() -> str:
    """The command that changes the kernel setting that forbids them, if one does."""
    for key, forbids, allows in (
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's kernels
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu since 24.04
    ):
        try:
            now = (_SYSCTL / key.replace(".", "/")).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if now == forbids:
            return f"echo {key}={allows} > /etc/sysctl.d/60-waguard.conf && sysctl --system"
    return ""


def fence(config: Config) -> Seen:
    ports = config.sandbox.connect_ports
    if gap := Fence.gap_here(ports):
        hint = "Use Linux 6.7 or newer. Until then only the control port's token keeps a browser out."
        return Seen(f"browsers connect to any TCP port, and may listen: {gap}", Grade.WARNING, hint)
    if not ports:
        return Seen("browsers listen on no TCP port, and connect to any: sandbox.connect_ports is empty")
    named = ", ".join(map(str, ports))
    return Seen(f"browsers listen on no TCP port, and connect to {named} and that of whatsapp.url only")
