"""What a process is called among its likes: in logs, as a queue's consumer, as a runner."""

from __future__ import annotations

import os
import re
import secrets
import socket


def new_instance() -> str:
    """Host name, process id and chance: replicas of one image, on one host or many, never share one."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
