"""Bundles unpacked on the runner's disk: what children read.

A folder per checksum, written once and renamed into place, so that a child never sees half a bundle.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from voicethere.core.bundle import Bundle, read_bundle
from voicethere.core.ports import BundleStore


def unpack(bundle: Bundle, folder: Path) -> None:
    """Write the files of `bundle` below `folder`, readable and not writable."""
    for name, data in bundle.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)


class UnpackedBundles:
    """Gives the folder of a bundle, unpacking it the first time."""

    def __init__(self, store: BundleStore, root: Path) -> None:
        self._store = store
        self._root = root
        self._locks: dict[str, asyncio.Lock] = {}

    async def folder(self, checksum: str) -> Path:
        """The folder that holds `agent.py`.

        Raises:
            KeyError: the store has no such bundle.
            InvalidBundle: it is not a bundle.
            OSError: the disk does not take it.
        """
        target = self._root / checksum
        async with self._locks.setdefault(checksum, asyncio.Lock()):
            if not target.is_dir():
                data = await self._store.get(checksum)
                await asyncio.to_thread(self._unpack, data, target)
        return target

    def _unpack(self, data: bytes, target: Path) -> None:
        bundle = read_bundle(data)
        self._root.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=self._root))
        try:
            unpack(bundle, fresh)
            fresh.chmod(0o755)
            os.rename(fresh, target)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
