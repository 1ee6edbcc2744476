"""What the kernel writes where a process comes to a bad end, core(5)."""

from contextlib import suppress
from pathlib import Path


def leave_out_memory() -> None:
    """Of this process, and of all that it starts from here on: secrets and chats are in it. Where it ended, and how, stays to be seen.

    A limit of nothing (RLIMIT_CORE) does not hold for a core that is piped to a program.
    """
    with suppress(OSError):  # a kernel without CONFIG_ELF_CORE, which writes none
        Path("/proc/self/coredump_filter").write_text("0", encoding="ascii")
