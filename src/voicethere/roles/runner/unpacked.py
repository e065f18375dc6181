"""Bundles unpacked on the runner's disk: what children read.

A folder per checksum, written once and renamed into place, so that a child never sees half a bundle.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path

from voicethere.core.bundle import Bundle, read_bundle
from voicethere.core.ports import BundleStore

UNUSED_SECONDS = 7 * 24 * 3600.0


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
            # When it was last used: see `forget_unused`.
            await asyncio.to_thread(os.utime, target)
        return target

    def forget_unused(self, *, seconds: float = UNUSED_SECONDS) -> int:
        """Remove what no session has used for so long, half unpacked ones among it; how many folders.

        For the start of a runner, before it has a session: what is needed again is fetched again.
        """
        if not self._root.is_dir():
            return 0
        before = time.time() - seconds
        unused = [folder for folder in self._root.iterdir() if folder.stat().st_mtime < before]
        for folder in unused:
            shutil.rmtree(folder, ignore_errors=True)
        return len(unused)

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
