"""The signals that tell a daemon to end, which its main thread alone hears.

Another thread that took one would leave nothing of it to whoever takes this process over by execve(2).
"""

import signal

ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP})


def block_stop_signals() -> None:
    """From here on this thread takes none of them: what is sent waits for one that does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
