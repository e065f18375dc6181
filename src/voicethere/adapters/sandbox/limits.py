"""Resource limits of one child: soft and hard alike, so that none can be raised."""

from __future__ import annotations

import resource

import msgspec

# Between the signal that says "too much processor time" and the kill that nobody can ignore.
_CPU_GRACE_SECONDS = 5


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """See `core.ports.SandboxLimits`, whose fields these are (the child does not import the ports)."""

    memory_bytes: int
    cpu_seconds: int
    open_files: int
    processes: int
    file_bytes: int


def _lower(kind: int, value: int, hard: int | None = None) -> None:
    """Set a limit, never above what this process itself was given."""
    _, given = resource.getrlimit(kind)
    wanted = value if hard is None else hard
    ceiling = wanted if given == resource.RLIM_INFINITY else min(wanted, given)
    resource.setrlimit(kind, (min(value, ceiling), ceiling))


def apply(limits: Limits) -> None:
    """Bind this process, apart from its threads (`apply_thread_limit`).

    Memory is address space: past it, allocation fails (MemoryError in Python). A file past its size fails
    with `OSError: File too large`; processor time past its limit is SIGXCPU, then SIGKILL.
    """
    _lower(resource.RLIMIT_AS, limits.memory_bytes)
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + _CPU_GRACE_SECONDS)
    _lower(resource.RLIMIT_NOFILE, limits.open_files)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_MSGQUEUE, 0)
    _lower(resource.RLIMIT_NICE, 0)
    _lower(resource.RLIMIT_RTPRIO, 0)
    _lower(resource.RLIMIT_MEMLOCK, 0)


def apply_thread_limit(limits: Limits) -> None:
    """How many threads this process may have; counts right only after `count_threads_alone`."""
    _lower(resource.RLIMIT_NPROC, limits.processes)
