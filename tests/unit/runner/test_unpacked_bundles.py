"""Bundles on a runner's disk: there when they are used, gone when nobody has used them for long."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.roles.runner.unpacked import UNUSED_SECONDS, UnpackedBundles

AGENT = b"from voicethere.agent import define_agent\n\ndefine_agent()\n"


async def test_what_nobody_uses_any_more_is_removed_and_fetched_again(tmp_path: Path) -> None:
    store = DirectoryBundleStore(tmp_path / "bundles")
    checksums = []
    for number in range(3):
        data = AGENT + b"# %d\n" % number
        checksums.append(hashlib.sha256(data).hexdigest())
        await store.put(checksums[-1], data)
    bundles = UnpackedBundles(store, tmp_path / "unpacked")
    assert bundles.forget_unused() == 0  # there is no folder yet
    folders = [await bundles.folder(checksum) for checksum in checksums]
    half_done = tmp_path / "unpacked" / ".unpacking-x"
    half_done.mkdir()
    long_ago = time.time() - UNUSED_SECONDS - 60
    for folder in (*folders[:2], half_done):
        os.utime(folder, (long_ago, long_ago))
    await bundles.folder(checksums[1])  # used again

    assert bundles.forget_unused() == 2
    assert [folder.is_dir() for folder in folders] == [False, True, True]
    assert (await bundles.folder(checksums[0]) / "agent.py").read_bytes().startswith(b"from voicethere")
