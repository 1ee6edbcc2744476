"""``waguard doctor``: what this machine offers, one small check each, and the command that mends a lack."""

import asyncio
import errno
import http.client
import os
import platform
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from waguard.backup import keys
from waguard.backup.seal import Opener
from waguard.browser import find, trial
from waguard.cli.client import control
from waguard.cli.errors import NoUser
from waguard.cli.findings import Finding, Grade
from waguard.cli.service import UNIT, Service, configured
from waguard.config.sections import Config
from waguard.errors import BackupRefused, SandboxFailed, WaguardError
from waguard.profile.links import look_for_links
from waguard.sandbox import choose, drop_privileges, unprivileged_user
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.sandbox.fence import Fence
from waguard.system import host
from waguard.system.files import as_storage_error

_TRIAL_S = 10.0
_LAST_WORDS = 3
"""Lines of what a browser wrote that are shown."""
_OTHER_BROWSER = (
    "Fix what it reports, or try another: apt-get install chromium-headless-shell, or browser.path"
)
_LATELY_H = 1.0
_MOST_ENTRIES = 10_000
"""How many files and directories are looked at."""
_MOST_SNAPSHOTS = 100
"""How many are opened."""
_UP = frozenset({"active", "reloading"})
_DOWN = frozenset({"inactive", "failed"})
"""States of a service that has no daemon and is to have none."""
_SYSCTL = Path("/proc/sys")
_FONTS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
_SHM = Path("/dev/shm")  # noqa: S108 (looked at, nothing is put there)
_SHM_MB = 256
_OLDEST_PYTHON = (3, 11)
_CONTAINER = "In a container: allow namespaces (docker run: --security-opt, --cap-add)"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one check saw. A check may as well raise `WaguardError`: that is a problem, with its hint."""

    what: str
    grade: Grade = Grade.OK
    mend: str = ""


def examine(path: Path | None) -> list[Finding]:
    """Every check in order. A wrong configuration is a problem among others; what depends on it is not looked at then."""
    try:
        loaded, service = configured(path)
    except WaguardError as error:
        mend = f"{error.hint or 'Fix what it names.'} Checks that depend on it were skipped."
        findings = [Finding("config", Grade.PROBLEM, error.message, mend)]
        checks = list(MACHINE)
    else:
        where = str(loaded.path.absolute() if loaded.path else "defaults, there is no file")
        findings = [
            Finding("config", Grade.OK, f"{where}, with the settings of {UNIT}" if service else where)
        ]
        checks = [
            *MACHINE,
            *((name, partial(check, loaded.config)) for name, check in CHECKS),
            *((name, partial(check, loaded.config, service)) for name, check in SERVICE),
        ]
    for name, check in checks:
        try:
            seen = check()
        except WaguardError as error:
            seen = Seen(error.message, Grade.PROBLEM, error.hint)
        except (OSError, subprocess.SubprocessError) as error:
            seen = Seen(str(error), Grade.PROBLEM)
        findings.append(Finding(name, seen.grade, seen.what, seen.mend))
    return findings


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # as in a container that was given any number
        return str(os.geteuid())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _uid(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise NoUser(
            f"There is no user {name}, as whom {UNIT} runs.",
            hint="systemd-sysusers waguard.conf",
        ) from None


def python() -> Seen:
    version = platform.python_version()
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Seen(f"{version} is older than 3.11", Grade.PROBLEM, "apt-get install python3")
    return Seen(version)


def user(config: Config) -> Seen:
    browsers = unprivileged_user(config.browser.user, config.sessions.dir.absolute())
    if browsers is None:
        return Seen(f"browsers run as {_me()}, like the daemon")
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
        mend = (_allow_namespaces() if browsers is None else "") or _CONTAINER
        return Seen(f"{program} does not work: {problem}{instead}", lack, mend)
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
    mend = _allow_namespaces() or _CONTAINER
    if config.browser.chromium_sandbox:
        return Seen(what, Grade.PROBLEM, f"{mend}. Or set browser.chromium_sandbox = false")
    return Seen(f"{what}; not used: browser.chromium_sandbox is false", Grade.WARNING, mend)


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
        mend = "Use Linux 6.7 or newer. Until then only the control port's token keeps a browser out."
        return Seen(f"browsers connect to any TCP port, and may listen: {gap}", Grade.WARNING, mend)
    if not ports:
        return Seen("browsers listen on no TCP port, and connect to any: sandbox.connect_ports is empty")
    named = ", ".join(map(str, ports))
    return Seen(f"browsers listen on no TCP port, and connect to {named} and that of whatsapp.url only")


def memory(config: Config) -> Seen:
    limits = config.limits
    free = host.available_memory_mb()
    room = (free - limits.reserve_memory_mb) // max(1, limits.session_memory_mb)
    if room < 1:
        return Seen(
            f"{free} MiB free: no room for a session (limits.session_memory_mb above limits.reserve_memory_mb)",
            Grade.PROBLEM,
            "Free some, or lower limits.session_memory_mb or limits.reserve_memory_mb",
        )
    return Seen(f"{free} MiB free, room for {min(room, limits.max_sessions)} sessions")


def disk(config: Config) -> Seen:
    free, reserve = host.free_disk_mb(config.sessions.dir.absolute()), config.limits.reserve_disk_mb
    if free < reserve:
        return Seen(
            f"{free} MiB free below {config.sessions.dir.absolute()}, less than limits.reserve_disk_mb = {reserve}",
            Grade.PROBLEM,
            f"See what takes the space: du -xh --max-depth=2 {config.sessions.dir.absolute()} | sort -h | tail",
        )
    return Seen(f"{free} MiB free below {config.sessions.dir.absolute()}")


def sessions(config: Config, service: Service | None = None) -> Seen:
    root, owner = config.sessions.dir.absolute(), service.user if service is not None else _me()
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Seen(
            f"{there} cannot be written by {_me()}",
            Grade.PROBLEM,
            f"install -d -m 711 -o {owner} {root}",
        )
    with as_storage_error(f"write {there}"):
        look_for_links(there)
    if there != root:
        return Seen(f"{root} will be created")
    uid = _uid(owner)
    # What a daemon of root has made for its browsers is theirs.
    looked_at = islice(_registry(root), _MOST_ENTRIES) if uid != 0 else (root,)
    for path in looked_at:
        try:
            other = path.lstat().st_uid
        except FileNotFoundError:  # a daemon at work
            continue
        if other == uid:
            continue
        what = f"{path} belongs to {_name(other)}, not to {owner}"
        if service is not None:
            # One client's may be another's business; without the directory itself there is no service.
            grade = Grade.PROBLEM if path == root else Grade.WARNING
            return Seen(what, grade, f"chown -R {owner}:{service.group} {root}")
        if uid == 0:
            mend = f"Run the daemon as its owner: runuser -u {_name(other)} -- waguard run"
        else:
            mend = f"Run the daemon as its owner, or: chown -R {owner} {root}"
        return Seen(what, Grade.WARNING, mend)
    if root.stat().st_mode & 0o022:
        return Seen(f"{root} can be written by others", Grade.WARNING, f"chmod go-w {root}")
    return Seen(f"{root} can be written")


def _registry(root: Path) -> Iterator[Path]:
    """The sessions directory, what is in it, and what is in that: all that the daemon itself writes, and no profile's inside."""
    yield root
    for path in root.iterdir():
        yield path
        with suppress(
            OSError
        ):  # it is gone meanwhile, or not ours to look into, which its owner has told already
            if path.is_dir() and not path.is_symlink():
                yield from path.iterdir()


def backup_keys(config: Config, service: Service | None = None) -> Seen:
    """Without them no snapshot can be opened; beside the snapshots they protect from nobody who has the disk."""
    named, root = config.backup.key_file, config.sessions.dir
    handed = service.credentials.get(keys.CREDENTIAL) if service is not None and named is None else None
    place = handed or keys.place(named, root)
    beside = place.parent == root
    if (handed is not None or beside) and not place.exists():
        return _no_keys(place, handed=handed is not None, sealed=any(root.glob(".backups/*/*.wgb")))
    if handed is not None and not os.access(place, os.R_OK):
        return Seen(f"{place}, which systemd passes to the service; only root can read it")
    ring = keys.load(place, make=False)
    what = f"{place}: {len(ring.keys)}, snapshots are sealed with {ring.newest.id}"
    for snapshot in _newest_snapshots(root):
        try:
            with snapshot.open("rb") as file:
                Opener(file, ring).read(1)
        except BackupRefused as error:
            mend = error.hint or "See the others: waguard backups " + snapshot.parent.name
            return Seen(f"{what}; {snapshot} cannot be opened: {error.message}", Grade.PROBLEM, mend)
        except OSError as error:  # it is gone meanwhile, or not ours to read
            return Seen(f"{what}; it could not be tried on {snapshot}: {error.strerror}")
    if beside and config.profile.at_rest == "sealed":
        mend = "Put them elsewhere: backup.key_file, or the systemd credential waguard.keys"
        return Seen(f"{what}; stored beside the snapshots that they seal", Grade.WARNING, mend)
    return Seen(what)


def _newest_snapshots(root: Path) -> Iterator[Path]:
    """Of each client, but for those that WhatsApp has refused."""
    for of_one in islice(root.glob(".backups/*"), _MOST_SNAPSHOTS):
        there = [path for path in of_one.glob("*.wgb") if not path.name.endswith(".refused.wgb")]
        if there:
            yield max(there, key=lambda path: path.name)


def _no_keys(place: Path, *, handed: bool, sealed: bool) -> Seen:
    if not handed and not sealed:
        return Seen(f"{place} is made at the first start")
    lacks = []
    if handed:
        lacks.append(f"the service, whose LoadCredential={keys.CREDENTIAL} names it, does not start")
    if sealed:
        lacks.append("no snapshot that was taken so far can be opened")
    mend = "Restore your copy of it" if sealed else f"Make it: {keys.recipe(place)}"
    return Seen(f"{place} is missing: {' and '.join(lacks)}", Grade.PROBLEM, mend)


def port(config: Config, service: Service | None = None) -> Seen:
    name, number = config.api.host, config.api.port
    if number == 0:
        return Seen("any free one: api.port is 0")
    family, kind, protocol, _, address = socket.getaddrinfo(name, number, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Seen(
                    f"{name}:{number} cannot be opened: {error.strerror}", Grade.PROBLEM, "Set api.port"
                )
        else:
            return Seen(f"{name}:{number} is free")
    state = service.state if service is not None and service.keeps(number) else ""
    # Who asks a socket that systemd keeps waits for a daemon that may never come, or has it started.
    if state not in _DOWN and _is_waguard(name, number):
        return Seen(f"a waguard answers at {name}:{number}")
    if state:
        what = f"{name}:{number} is kept by systemd for the service, which is {state}"
        if state == "inactive":  # its first request starts it
            return Seen(what)
        return Seen(what, Grade.WARNING, "See why it does not answer: systemctl status waguard")
    return Seen(
        f"{name}:{number} is taken by another program",
        Grade.PROBLEM,
        f"See which: ss -ltnp 'sport = :{number}'. Or set api.port",
    )


def daemon(config: Config, service: Service | None = None) -> Seen:
    """In what the running one starts browsers. What works here need not work there, under its unit's settings."""
    if service is not None and service.state not in _UP:  # its socket would start it, or have us wait
        return _down(service)

    try:
        with control(config, service, None) as running:
            sandbox = running.sessions().sandbox
    except WaguardError as error:
        none = error.code in {"no_daemon", "no_token"}
        return Seen(error.message) if none else Seen(error.message, Grade.WARNING, error.hint)
    if sandbox is None:
        return Seen("runs; only the admin is shown its sandbox")
    if sandbox.problem:
        what = f"runs, with browsers in {sandbox.kind} instead of bubblewrap: {sandbox.problem}"
        mend = "If bubblewrap works here, something in the daemon's own environment prevents it"
        unit = f", such as a line of {UNIT}" if service is not None else ""
        return Seen(what, Grade.WARNING, f"{mend}{unit}. It is tried again at the daemon's next start")
    return Seen(f"runs, with browsers in {sandbox.kind}")


def _down(service: Service) -> Seen:
    why = "See why: journalctl -u waguard -p err"
    if service.state == "failed":
        return Seen(f"{UNIT} has failed", Grade.PROBLEM, f"{why}; then: systemctl reset-failed waguard")
    if service.state == "activating" and service.restarts:
        what = f"{UNIT} keeps ending: systemd has restarted it {service.restarts} times"
        return Seen(what, Grade.PROBLEM, why)
    if service.state == "inactive" and service.enabled and not service.listens:
        return Seen(f"{UNIT} is enabled, and down", Grade.WARNING, "systemctl start waguard")
    return Seen(f"{UNIT} is {service.state}")


def alerts(config: Config, service: Service | None = None) -> Seen:
    """What the running daemon itself says is wrong, and what connects have failed with lately."""
    if service is not None and service.state not in _UP:
        return Seen("there is no daemon to ask")

    try:
        with control(config, service, None) as running:
            found = running.stats(None, _LATELY_H)
    except WaguardError as error:  # `daemon` tells
        return Seen(f"not known: {error.message}")
    if found.alerts:
        what = "; ".join(f"{one.alert}: {one.text}" for one in found.alerts)
        return Seen(
            what, Grade.PROBLEM, "Fix what they name; they then clear automatically. See: waguard status"
        )
    attempts = found.attempts
    if wrong := attempts.failed + attempts.refused:
        codes = ", ".join(f"{code} {count}" for code, count in attempts.failures.items())
        what = f"none; of {attempts.usable + wrong} connects of the last hour {wrong} had no success: {codes}"
        return Seen(what, Grade.OK if attempts.usable else Grade.WARNING, "See why: waguard status")
    return Seen("none")


def _is_waguard(name: str, number: int) -> bool:
    connection = http.client.HTTPConnection(name, number, timeout=_TRIAL_S)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read(100).replace(b" ", b"") == b'{"status":"ok"}'
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def fonts() -> Seen:
    files = (path for place in _FONTS for path in place.rglob("*"))
    found = next((path for path in files if path.suffix in {".ttf", ".otf", ".ttc", ".pfb"}), None)
    if found is None:
        return Seen(
            "none: text on the page would be boxes", Grade.WARNING, "apt-get install fonts-liberation"
        )
    return Seen(f"{found.name} and perhaps more")


def shared_memory() -> Seen:
    free = shutil.disk_usage(_SHM).free // host.MB if os.access(_SHM, os.W_OK | os.X_OK) else 0
    if free < _SHM_MB:
        return Seen(
            f"{_SHM} has {free} MiB: pages may crash where bubblewrap does not bring its own",
            Grade.WARNING,
            f"mount -o remount,size=1G {_SHM}, or of a container: --shm-size=1g",
        )
    return Seen(f"{_SHM} has {free} MiB")


MACHINE: Sequence[tuple[str, Callable[[], Seen]]] = (
    ("python", python),
    ("fonts", fonts),
    ("/dev/shm", shared_memory),  # noqa: S108 (its name)
)
CHECKS: Sequence[tuple[str, Callable[[Config], Seen]]] = (
    ("user", user),
    ("browser", browser),
    ("bubblewrap", bubblewrap),
    ("user namespaces", user_namespaces),
    ("fence", fence),
    ("memory", memory),
    ("disk", disk),
)
SERVICE: Sequence[tuple[str, Callable[[Config, Service | None], Seen]]] = (
    ("sessions", sessions),
    ("backup keys", backup_keys),
    ("port", port),
    ("daemon", daemon),
    ("alerts", alerts),
)
"""Of what is the service's, where the configuration is."""
