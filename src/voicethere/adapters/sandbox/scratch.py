"""Private folders for children, and the removal of what a killed runner left behind.

`ROOT/sandbox-XXXX/` belongs to one running sandbox, which holds a lock on it as long as it lives: a folder
whose lock is free is an orphan. What lies in a child's folder is hostile (odd names, unreadable folders,
a hundred thousand files).
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import secrets
import tempfile
from pathlib import Path

_OURS = "sandbox-"
_LOCK = ".lock"


def _remove_tree(top: Path) -> None:
    """Remove a folder whatever its owner did inside: unreadable folders, and folders nested deeper than
    any path or recursion may be (so each is lifted to the top before its turn comes)."""
    lifted = (top / f"{secrets.token_hex(8)}-{number}" for number in itertools.count())
    waiting: list[str] = []
    for entry in list(os.scandir(top)):
        if entry.is_dir(follow_symlinks=False):
            waiting.append(entry.path)
        else:
            os.unlink(entry.path)
    while waiting:
        folder = waiting.pop()
        os.chmod(folder, 0o700)
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                higher = str(next(lifted))
                os.rename(entry.path, higher)
                waiting.append(higher)
            else:
                os.unlink(entry.path)
        os.rmdir(folder)
    os.rmdir(top)


class ScratchRoot:
    """The folders of one sandbox under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder: Path | None = None
        self._lock: int | None = None
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        """Make this sandbox's own folder and remove orphans.

        Raises:
            OSError: `root` cannot be written.
        """
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One sandbox at a time comes here, so that a folder that is not locked yet is not mistaken.
        guard = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            for orphan in sorted(self._root.glob(f"{_OURS}*")):
                try:
                    self._remove_if_orphan(orphan)
                except OSError:
                    pass  # its children are just being killed and still write: the next sandbox removes it
            self._folder = Path(tempfile.mkdtemp(prefix=_OURS, dir=self._root)).resolve()
            self._lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        finally:
            os.close(guard)

    def _remove_if_orphan(self, folder: Path) -> None:
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            _remove_tree(folder)  # its maker died between two lines, or its removal did
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            _remove_tree(folder)
        finally:
            os.close(lock)

    def new(self) -> Path:
        """An empty folder that only this user may enter."""
        assert self._folder is not None
        folder = self._folder / str(next(self._numbers))
        folder.mkdir(mode=0o700)
        return folder

    async def remove(self, folder: Path) -> None:
        """Remove a child's folder; the child has ended."""
        try:
            os.rmdir(folder)  # most children write nothing
        except FileNotFoundError:
            pass
        except OSError:
            await asyncio.to_thread(_remove_tree, folder)

    async def aclose(self) -> None:
        """Remove this sandbox's folder and let go of the lock."""
        folder, self._folder = self._folder, None
        lock, self._lock = self._lock, None
        if folder is not None:
            await asyncio.to_thread(_remove_tree, folder)
        if lock is not None:
            os.close(lock)
