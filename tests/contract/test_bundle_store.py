"""What a store of bundles promises."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from voicethere.adapters.bundles import BundleDamaged, DirectoryBundleStore
from voicethere.core.ports import BundleStore

DATA = b"def agent(): ...\n" * 1000
CHECKSUM = hashlib.sha256(DATA).hexdigest()


def files(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bundles"


@pytest.fixture
def store(root: Path) -> BundleStore:
    return DirectoryBundleStore(root)


async def test_a_bundle_comes_back_as_it_was_put(store: BundleStore) -> None:
    await store.put(CHECKSUM, DATA)
    assert await store.get(CHECKSUM) == DATA


async def test_putting_again_changes_nothing(store: BundleStore, root: Path) -> None:
    await asyncio.gather(*(store.put(CHECKSUM, DATA) for _ in range(8)))
    assert await store.get(CHECKSUM) == DATA
    assert files(root) == [CHECKSUM]


async def test_an_empty_bundle_is_one_too(store: BundleStore) -> None:
    await store.put(hashlib.sha256(b"").hexdigest(), b"")
    assert await store.get(hashlib.sha256(b"").hexdigest()) == b""


async def test_what_is_not_there_is_a_key_error(store: BundleStore) -> None:
    with pytest.raises(KeyError, match=CHECKSUM):
        await store.get(CHECKSUM)


async def test_a_deleted_bundle_is_gone_and_deleting_is_repeatable(store: BundleStore) -> None:
    await store.put(CHECKSUM, DATA)
    await store.delete(CHECKSUM)
    await store.delete(CHECKSUM)
    with pytest.raises(KeyError):
        await store.get(CHECKSUM)


async def test_bytes_under_a_wrong_name_are_refused(store: BundleStore, root: Path) -> None:
    with pytest.raises(ValueError, match=CHECKSUM):
        await store.put(CHECKSUM, DATA + b"x")
    assert files(root) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../../etc/passwd",
        CHECKSUM[:-1],
        CHECKSUM + "0",
        CHECKSUM.upper(),
        CHECKSUM + "\n",
        "g" * 64,
        "٣" * 64,
    ],
)
async def test_a_name_that_is_no_checksum_is_refused(store: BundleStore, name: str) -> None:
    for call in (store.put(name, DATA), store.get(name), store.delete(name)):
        with pytest.raises(ValueError, match="64 lower-case hex digits"):
            await call


async def test_damage_is_noticed(store: BundleStore, root: Path) -> None:
    await store.put(CHECKSUM, DATA)
    (root / CHECKSUM[:2] / CHECKSUM).write_bytes(DATA[:-1])
    with pytest.raises(BundleDamaged, match="upload it again"):
        await store.get(CHECKSUM)


async def test_files_are_private_and_sharded(store: BundleStore, root: Path) -> None:
    await store.put(CHECKSUM, DATA)
    path = root / CHECKSUM[:2] / CHECKSUM
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert mode(root) == 0o700


async def test_a_put_that_fails_leaves_nothing(
    store: BundleStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        await store.put(CHECKSUM, DATA)
    assert files(root) == []
    with pytest.raises(KeyError):
        await store.get(CHECKSUM)


async def test_what_a_killed_writer_left_is_swept_once_it_is_old(store: BundleStore, root: Path) -> None:
    shard = root / CHECKSUM[:2]
    shard.mkdir(parents=True)
    old, young = shard / "old.unfinished", shard / "young.unfinished"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (0, 0))
    await store.put(CHECKSUM, DATA)
    assert not old.exists()
    assert young.exists()
