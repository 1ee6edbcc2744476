#!/usr/bin/env python3
"""Write container/seccomp.json anew: the calls that systemd/waguard.service allows, in the form that Docker and podman read.

So that the container may do what the service may, which is tried under a real systemd, and no more. Needs systemd-analyze 252, whose
sets of calls these are. The form: https://docs.docker.com/engine/security/seccomp/ and the runtime specification of OCI.
"""

import errno
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "systemd" / "waguard.service"
NAMESPACES = {
    "cgroup": 0x02000000,
    "ipc": 0x08000000,
    "mnt": 0x00020000,
    "net": 0x40000000,
    "pid": 0x20000000,
}
NAMESPACES |= {"user": 0x10000000, "uts": 0x04000000}
"""CLONE_NEW*, clone(2)."""
MAKE_NAMESPACES = {"clone": 0, "unshare": 0, "setns": 1}
"""Which argument says of which kind."""


def profile() -> dict[str, object]:
    sets = _sets()
    calls: set[str] = set()
    for words in _settings("SystemCallFilter"):
        named = _expand(sets, words.removeprefix("~").split())
        calls = calls - named if words.startswith("~") else calls | named
    (allowed,) = _settings("RestrictNamespaces")
    forbidden = sum(flag for name, flag in NAMESPACES.items() if name not in allowed.split())
    plain = sorted(calls - MAKE_NAMESPACES.keys() - {"clone3"})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        # Native calls only, as SystemCallArchitectures= has it.
        "archMap": [
            {"architecture": name, "subArchitectures": []} for name in ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
        ],
        "syscalls": [
            {"names": plain, "action": "SCMP_ACT_ALLOW"},
            *({"names": [call], "action": "SCMP_ACT_ALLOW", "args": [_without(forbidden, index)]} for call, index in MAKE_NAMESPACES.items()),
            # Its flags are in memory, where no filter sees them: as if there were none, so that glibc takes clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
        ],
    }  # fmt: skip


def _without(flags: int, index: int) -> dict[str, object]:
    return {"index": index, "value": flags, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}


def _settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def _sets() -> Mapping[str, Sequence[str]]:
    command = ["systemd-analyze", "syscall-filter", "--no-pager"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, list[str]] = {}
    inside: list[str] = []
    for line in said.splitlines():
        if line.startswith("@"):
            inside = found.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            inside.append(line.strip())
        elif not line.startswith(" "):
            inside = []
    return found


def _expand(sets: Mapping[str, Sequence[str]], names: Sequence[str]) -> set[str]:
    calls: set[str] = set()
    for name in names:
        calls |= _expand(sets, sets[name]) if name.startswith("@") else {name}
    return calls


if __name__ == "__main__":
    text = json.dumps(profile(), indent=2) + "\n"
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(text)
    else:
        (ROOT / "container" / "seccomp.json").write_text(text, encoding="utf-8")
