"""What a store of bundles promises, on each that there is. The S3 store speaks to a real server over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from voicethere.adapters.bundles import BundleDamaged, open_bundle_store
from voicethere.core.ports import BundleStore, BundlesUnavailable

DATA = b"def agent(): ...\n" * 1000
CHECKSUM = hashlib.sha256(DATA).hexdigest()


@dataclass
class Kept:
    """A store, and a look behind it."""

    store: BundleStore
    names: Callable[[], list[str]]
    overwrite: Callable[[str, bytes], object]
    break_it: Callable[[], None]


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["directory", "s3"])
async def kept(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Kept]:
    if request.param == "directory":
        kept = in_directory(tmp_path / "bundles")
    else:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
        kept = in_bucket(request.getfixturevalue("s3_endpoint"))
    yield kept
    await kept.store.aclose()


def in_directory(root: Path) -> Kept:
    def break_it() -> None:
        root.rename(root.with_name("moved"))
        root.write_text("a file where the directory should be")

    return Kept(
        store=open_bundle_store(str(root)),
        names=lambda: [path.name for path in root.rglob("*") if path.is_file()],
        overwrite=lambda name, data: (root / name[:2] / name).write_bytes(data),
        break_it=break_it,
    )


def in_bucket(endpoint: str) -> Kept:
    bucket = f"b-{uuid.uuid4().hex}"

    def behind(action: Callable[..., object]) -> object:
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        try:
            return action(client)
        finally:
            client.close()

    behind(lambda client: client.create_bucket(Bucket=bucket))

    def names() -> list[str]:
        found: dict[str, list[dict[str, str]]] = behind(lambda client: client.list_objects_v2(Bucket=bucket))  # type: ignore[assignment]
        return [entry["Key"].removeprefix("some/where/") for entry in found.get("Contents", [])]

    def empty_and_remove() -> None:
        for name in names():
            behind(lambda client, key=f"some/where/{name}": client.delete_object(Bucket=bucket, Key=key))
        behind(lambda client: client.delete_bucket(Bucket=bucket))

    return Kept(
        store=open_bundle_store(f"s3://{bucket}/some/where/?endpoint={endpoint}"),
        names=names,
        overwrite=lambda name, data: behind(
            lambda client: client.put_object(Bucket=bucket, Key=f"some/where/{name}", Body=data)
        ),
        break_it=empty_and_remove,
    )


async def test_a_bundle_comes_back_as_it_was_put(kept: Kept) -> None:
    await kept.store.ping()
    await kept.store.put(CHECKSUM, DATA)
    assert await kept.store.get(CHECKSUM) == DATA


async def test_putting_again_changes_nothing(kept: Kept) -> None:
    await asyncio.gather(*(kept.store.put(CHECKSUM, DATA) for _ in range(8)))
    assert await kept.store.get(CHECKSUM) == DATA
    assert kept.names() == [CHECKSUM]


async def test_an_empty_bundle_is_one_too(kept: Kept) -> None:
    await kept.store.put(hashlib.sha256(b"").hexdigest(), b"")
    assert await kept.store.get(hashlib.sha256(b"").hexdigest()) == b""


async def test_what_is_not_there_is_a_key_error(kept: Kept) -> None:
    with pytest.raises(KeyError, match=CHECKSUM):
        await kept.store.get(CHECKSUM)


async def test_a_deleted_bundle_is_gone_and_deleting_is_repeatable(kept: Kept) -> None:
    await kept.store.put(CHECKSUM, DATA)
    await kept.store.delete(CHECKSUM)
    await kept.store.delete(CHECKSUM)
    with pytest.raises(KeyError):
        await kept.store.get(CHECKSUM)


async def test_bytes_under_a_wrong_name_are_refused(kept: Kept) -> None:
    with pytest.raises(ValueError, match=CHECKSUM):
        await kept.store.put(CHECKSUM, DATA + b"x")
    assert kept.names() == []


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
async def test_a_name_that_is_no_checksum_is_refused(kept: Kept, name: str) -> None:
    for call in (kept.store.put(name, DATA), kept.store.get(name), kept.store.delete(name)):
        with pytest.raises(ValueError, match="64 lower-case hex digits"):
            await call


@pytest.mark.parametrize("stored", [DATA[:-1], b"", DATA + b"x"])
async def test_damage_is_noticed(kept: Kept, stored: bytes) -> None:
    await kept.store.put(CHECKSUM, DATA)
    kept.overwrite(CHECKSUM, stored)
    with pytest.raises(BundleDamaged, match="upload it again"):
        await kept.store.get(CHECKSUM)


async def test_a_store_that_is_gone_is_unavailable(kept: Kept) -> None:
    await kept.store.put(CHECKSUM, DATA)
    kept.break_it()
    for call in (kept.store.put(CHECKSUM, DATA), kept.store.ping(), kept.store.get(CHECKSUM)):
        with pytest.raises(BundlesUnavailable, match=r"bundles|s3://"):
            await call


# ------------------------------------------------------------------ the directory alone


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bundles"


def files(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_files_are_private_and_sharded(root: Path) -> None:
    await open_bundle_store(str(root)).put(CHECKSUM, DATA)
    path = root / CHECKSUM[:2] / CHECKSUM
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert mode(root) == 0o700


async def test_a_put_that_fails_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store = open_bundle_store(str(root))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BundlesUnavailable, match="No space left"):
        await store.put(CHECKSUM, DATA)
    assert files(root) == []
    with pytest.raises(KeyError):
        await store.get(CHECKSUM)


async def test_what_a_killed_writer_left_is_swept_once_it_is_old(root: Path) -> None:
    shard = root / CHECKSUM[:2]
    shard.mkdir(parents=True)
    old, young = shard / "old.unfinished", shard / "young.unfinished"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (0, 0))
    await open_bundle_store(str(root)).put(CHECKSUM, DATA)
    assert not old.exists()
    assert young.exists()
