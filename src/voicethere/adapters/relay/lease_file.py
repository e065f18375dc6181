"""The right to coordinate on one machine: an exclusive lock on a file.

The kernel gives the lock back when its holder ends, however it ends. It does not when the holder merely
hangs: on one machine that is for the operator, or whatever watches the process, to see.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)


class EmbeddedLease:
    """Implements `Lease` for processes that share a directory.

    Example:
        >>> lease = EmbeddedLease(Path("data/coordinator.lock"))
        >>> if await lease.hold():
        ...     coordinate()
    """

    def __init__(self, path: Path, *, seconds: float = 5.0) -> None:
        self._path = path
        self._seconds = seconds
        self._descriptor: int | None = None
        self._closed = False

    @property
    def seconds(self) -> float:
        """How often to look is a third of this; a lock on a file does not lapse while its holder lives."""
        return self._seconds

    async def hold(self) -> bool:
        """Whether the lock is ours now. False, too, where there can be no such file."""
        if self._closed:
            return False
        try:
            if self._descriptor is None:
                self._descriptor = self._lock()
            elif not self._same_file(self._descriptor):
                # Somebody removed the file; another process may hold a lock on its successor.
                self._unlock()
        except OSError as error:
            _log.warning("lease_unavailable", problem=str(error))
            self._unlock()
        return self._descriptor is not None

    async def release(self) -> None:
        """Let the next one have it. Harmless where it is not ours."""
        self._unlock()

    async def aclose(self) -> None:
        """Release it for good. The file stays: to remove it would take it from under its next holder."""
        self._closed = True
        self._unlock()

    def _lock(self) -> int | None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _same_file(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _unlock(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
