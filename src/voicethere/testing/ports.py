"""TCP ports for the servers that tests start."""

from __future__ import annotations

import random
import socket

# Below the range from which the kernel takes ports of outgoing connections: while the server is down, a
# client that tries again and again would otherwise, sooner or later, be connected to itself.
_PORTS = range(15_000, 32_000)
_ATTEMPTS = 100


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens just now.

    Raises:
        OSError: none was found.
    """
    # Of the system's own chance: several test processes may be started from one seed.
    chance = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        port = chance.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port among {_PORTS.start} to {_PORTS.stop - 1}")
