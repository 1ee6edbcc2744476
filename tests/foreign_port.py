"""A program that listens on a port and writes down what it is sent: what may be there while no daemon is.

Run by root it does so as ``nobody``. With a file's name it holds a lock on that, as a daemon does, from when a line comes in.
"""

import fcntl
import os
import socket
import sys

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"sessions":[]}'


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    lock = os.open(sys.argv[1], os.O_RDWR) if len(sys.argv) > 1 else None
    if os.geteuid() == 0:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    with socket.create_server(("127.0.0.1", 0)) as server:
        tell(str(server.getsockname()[1]))
        if lock is not None:
            sys.stdin.readline()
            fcntl.flock(lock, fcntl.LOCK_EX)
        while True:
            one, _ = server.accept()
            with one:
                while said := one.recv(65536):
                    tell(repr(said))
                    one.sendall(ANSWER)


if __name__ == "__main__":
    main()
