"""The S3 store against servers that refuse, stall, stutter and lie; and addresses that name no store."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from voicethere.adapters.bundles import BundleDamaged, DirectoryBundleStore, open_bundle_store
from voicethere.adapters.bundles.s3 import MAX_OBJECT_BYTES, S3BundleStore
from voicethere.core.ports import BundlesUnavailable
from voicethere.testing.ports import free_port

DATA = b"def agent(): ...\n"
CHECKSUM = hashlib.sha256(DATA).hexdigest()
KEY, SECRET = "AKIDOFTHETESTS", "wJalrXUtnFEMI-secret-of-the-tests"


@dataclass
class Answers:
    """An S3 server that gives the listed answers, the last one for ever: `(status, body)`."""

    port: int = 0
    script: list[tuple[int, bytes]] = field(default_factory=list)
    content_length: int | None = None
    requests: list[str] = field(default_factory=list)

    def next(self) -> tuple[int, bytes]:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def refuse(self, status: int, code: str) -> None:
        self.script = [(status, f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode())]


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            answers.requests.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, body = answers.next()
            self.send_response(status)
            self.send_header("content-length", str(answers.content_length or len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield answers
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def store_at(port: int, *, attempts: int = 1, answer_seconds: float = 10) -> S3BundleStore:
    return S3BundleStore(
        "bucket",
        "agents",
        endpoint=f"http://127.0.0.1:{port}",
        path_style=True,
        attempts=attempts,
        answer_seconds=answer_seconds,
    )


async def words_of(call: Callable[[S3BundleStore], object], store: S3BundleStore) -> str:
    """What the store says; it repeats no credential."""
    with pytest.raises(BundlesUnavailable) as caught:
        await call(store)  # type: ignore[misc]
    await store.aclose()
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "NoSuchBucket", "create it first"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "the secret key does not fit"),
        (403, "AccessDenied", "s3:GetObject"),
        (400, "Odd\x1b[31m<x/>", "Odd"),
        (500, "InternalError", "InternalError"),
    ],
)
async def test_a_refusal_says_what_to_do(server: Answers, status: int, code: str, words: str) -> None:
    server.refuse(status, code.replace("\x1b", "").replace("<x/>", ""))
    said = await words_of(lambda store: store.get(CHECKSUM), store_at(server.port))
    assert words in said
    assert said.startswith(f"s3://bucket/agents/ at http://127.0.0.1:{server.port}")
    assert server.requests == [f"GET /bucket/agents/{CHECKSUM}"]


async def test_a_refused_put_is_no_bundle(server: Answers) -> None:
    server.refuse(403, "AccessDenied")
    assert "s3:PutObject" in await words_of(lambda store: store.put(CHECKSUM, DATA), store_at(server.port))


async def test_a_look_at_a_bucket_that_is_not_there(server: Answers) -> None:
    server.script = [(404, b"")]
    assert "no such bucket" in await words_of(lambda store: store.ping(), store_at(server.port))


async def test_a_stutter_is_tried_again(server: Answers) -> None:
    busy = (503, b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
    server.script = [busy, (200, DATA)]
    store = store_at(server.port, attempts=3)
    assert await store.get(CHECKSUM) == DATA
    assert len(server.requests) == 2
    await store.aclose()


async def test_a_server_that_stalls_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = store_at(listener.getsockname()[1], answer_seconds=0.2)
        said = await words_of(lambda store: store.get(CHECKSUM), store)
    assert "cannot reach s3://bucket/agents/" in said
    assert "ReadTimeoutError" in said


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    said = await words_of(lambda store: store.put(CHECKSUM, DATA), store_at(free_port()))
    assert "EndpointConnectionError" in said


async def test_an_answer_that_breaks_off_is_unavailable(server: Answers) -> None:
    server.script, server.content_length = [(200, DATA)], len(DATA) + 10
    said = await words_of(lambda store: store.get(CHECKSUM), store_at(server.port))
    assert "cannot reach" in said


async def test_an_object_past_any_bundle_is_not_read(server: Answers) -> None:
    server.script, server.content_length = [(200, DATA)], MAX_OBJECT_BYTES + 1
    store = store_at(server.port)
    with pytest.raises(BundleDamaged):
        await asyncio.wait_for(store.get(CHECKSUM), 10)
    await store.aclose()


async def test_without_credentials_it_says_which_are_needed(
    server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said = await words_of(lambda store: store.get(CHECKSUM), store_at(server.port))
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert server.requests == []


# ------------------------------------------------------------------ addresses


@pytest.mark.parametrize("location", ["{}/bundles", "file://{}/bund%6ces"])
async def test_a_directory_is_named_by_its_path(tmp_path: Path, location: str) -> None:
    store = open_bundle_store(location.format(tmp_path))
    assert isinstance(store, DirectoryBundleStore)
    await store.put(CHECKSUM, DATA)
    assert (tmp_path / "bundles" / CHECKSUM[:2] / CHECKSUM).read_bytes() == DATA


async def test_a_bucket_is_named_with_its_endpoint_and_region(server: Answers) -> None:
    server.script = [(200, DATA)]
    store = open_bundle_store(f"s3://bucket/a/b?endpoint=http://127.0.0.1:{server.port}&region=eu-central-1")
    assert isinstance(store, S3BundleStore)
    await store.get(CHECKSUM)
    assert server.requests == [f"GET /bucket/a/b/{CHECKSUM}"]
    await store.aclose()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "a directory or s3://"),
        (" ", "a directory or s3://"),
        ("a\0b", "a directory or s3://"),
        ("ftp://host/dir", "'ftp' is not supported"),
        ("file://dir", "absolute directory"),
        ("file:///dir?x=1", "no options"),
        ("s3://", "no bucket"),
        ("s3:///prefix", "no bucket"),
        ("s3://bucket:99999/", "no address"),
        ("s3://[bucket/", "no address"),
        ("s3://KEY:hunter2@bucket", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/a/../b", "a prefix has"),
        ("s3://bucket/a//b", "a prefix has"),
        ("s3://bucket/a b", "a prefix has"),
        ("s3://bucket/a#b", "'#'"),
        ("s3://bucket?endpoint=host:9000", "http://host:9000"),
        ("s3://bucket?endpoint=http://a:hunter2@host", "without credentials"),
        ("s3://bucket?endpoint=http://[host", "http://host:9000"),
        ("s3://bucket?endpont=http://host", "there are endpoint, region, path_style"),
        ("s3://bucket?access_key=hunter2", "'access_key' is no option"),
        ("s3://bucket?region=EU%20west", "eu-central-1"),
        ("s3://bucket?path_style=yes", "true or false"),
        ("s3://bucket?region", "the options behind '?'"),
    ],
)
def test_an_address_of_no_store_says_what_is_wrong(location: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_bundle_store(location)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "voicethere.adapters.bundles.s3")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ValueError, match=r"pip install 'voicethere\[s3\]'"):
        open_bundle_store("s3://bucket")
