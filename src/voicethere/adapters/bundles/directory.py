"""Bundles as files of a directory, named and checked by the SHA-256 of their bytes.

A file appears whole or not at all, is private to its owner, and is verified whenever it is read. Knows
nothing of what is inside a bundle.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from voicethere.adapters.bundles.checksums import require_checksum, require_match, require_undamaged
from voicethere.core.ports import BundlesUnavailable

_UNFINISHED_SUFFIX = ".unfinished"
_UNFINISHED_SECONDS = 3600


class DirectoryBundleStore:
    """Implements `BundleStore`: `root/ab/abcdef…`, sharded by the first two digits.

    Example:
        >>> store = DirectoryBundleStore(Path("data/bundles"))
        >>> await store.put(hashlib.sha256(data).hexdigest(), data)
    """

    def __init__(self, root: Path) -> None:
        """`root` is made when the first bundle comes."""
        self._root = root

    async def put(self, checksum: str, data: bytes) -> None:
        """Return once the bundle is durable; putting it again changes nothing.

        Raises:
            ValueError: not a SHA-256 in lower-case hex, or not that of `data`.
            BundlesUnavailable: it cannot be written; nothing is left behind.
        """
        path = self._path(checksum)
        try:
            await asyncio.to_thread(_write, path, checksum, data)
        except OSError as error:
            raise self._unavailable("written", error) from error

    async def get(self, checksum: str) -> bytes:
        """The bundle's bytes.

        Raises:
            ValueError: not a SHA-256 in lower-case hex.
            KeyError: there is none.
            BundleDamaged: there is one, with other bytes than were put.
            BundlesUnavailable: it cannot be read.
        """
        path = self._path(checksum)
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            raise KeyError(checksum) from None
        except OSError as error:
            raise self._unavailable("read", error) from error
        require_undamaged(checksum, data)
        return data

    async def delete(self, checksum: str) -> None:
        """Remove the bundle; nothing happens where there is none.

        Raises:
            ValueError: not a SHA-256 in lower-case hex.
            BundlesUnavailable: it cannot be removed.
        """
        path = self._path(checksum)
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise self._unavailable("written", error) from error

    async def ping(self) -> None:
        """Raises BundlesUnavailable where the directory can neither be used nor made."""
        try:
            await asyncio.to_thread(self._root.mkdir, mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._unavailable("written", error) from error
        if not os.access(self._root, os.R_OK | os.X_OK):
            raise BundlesUnavailable(f"the bundles in {self._root} cannot be read: permission denied")

    async def aclose(self) -> None:
        """Nothing is held."""

    def _path(self, checksum: str) -> Path:
        require_checksum(checksum)
        return self._root / checksum[:2] / checksum

    def _unavailable(self, what: str, error: OSError) -> BundlesUnavailable:
        return BundlesUnavailable(f"the bundles in {self._root} cannot be {what}: {error.strerror or error}")


def _write(path: Path, checksum: str, data: bytes) -> None:
    require_match(checksum, data)
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _sweep(path.parent)
    # Made with mode 0600.
    descriptor, name = tempfile.mkstemp(prefix=checksum[:8], suffix=_UNFINISHED_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    # The names are durable when their directories are.
    for directory in (path.parent, path.parent.parent):
        _sync_directory(directory)


def _sweep(shard: Path) -> None:
    """Remove what a process that was killed while it wrote has left, once nobody can be writing it."""
    for left in shard.glob(f"*{_UNFINISHED_SUFFIX}"):
        try:
            if time.time() - left.stat().st_mtime > _UNFINISHED_SECONDS:
                left.unlink()
        except FileNotFoundError:
            continue


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
