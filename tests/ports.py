"""Ports that are free, and stay so while nobody asked has them: no ``bind`` to port 0 and no connection gets one of these."""

import random
import socket
from pathlib import Path


def free_port() -> int:
    """Of loopback, below those that the kernel gives out, ip(7)."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
