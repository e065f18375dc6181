"""The small parts of signaling: addresses, the outbox, the message rate, the log filter."""

from __future__ import annotations

import asyncio
import logging

import pytest

from voicethere.roles.sessions.addresses import check_public_base_url, signaling_url
from voicethere.roles.sessions.gateway import MessageRate
from voicethere.roles.sessions.outbox import Close, SocketOutbox
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.signaling import JoinTokenFilter
from voicethere.testing.clock import ManualClock

FORWARDED = {"host": "inner:8080", "x-forwarded-proto": "https, http", "x-forwarded-host": "talk.example.com"}


def url(headers: dict[str, str], scheme: str = "http", **settings: object) -> str:
    return signaling_url(
        SessionServiceSettings(**settings),  # type: ignore[arg-type]
        scheme=scheme,
        headers=headers,
        server="10.0.0.1:8080",
    )


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://voice.example.com", "wss://voice.example.com/v1/signaling"),
        ("http://voice.example.com:8080/", "ws://voice.example.com:8080/v1/signaling"),
        ("https://example.com/voice/", "wss://example.com/voice/v1/signaling"),
    ],
)
def test_the_configured_address_wins(base: str, expected: str) -> None:
    assert url(FORWARDED, public_base_url=base, trust_forwarded_headers=True) == expected


@pytest.mark.parametrize("base", ["voice.example.com", "ftp://example.com", "https://", "https://e.com/?a=b"])
def test_a_bad_configured_address_is_explained(base: str) -> None:
    with pytest.raises(ValueError, match=r"https://voice\.example\.com"):
        check_public_base_url(base)


def test_the_address_that_the_client_used_is_given_back() -> None:
    assert url({"host": "localhost:8080"}) == "ws://localhost:8080/v1/signaling"
    assert url({"host": "[::1]:8080"}, "https") == "wss://[::1]:8080/v1/signaling"


def test_forwarded_headers_count_only_where_they_are_trusted() -> None:
    assert url(FORWARDED) == "ws://inner:8080/v1/signaling"
    assert url(FORWARDED, trust_forwarded_headers=True) == "wss://talk.example.com/v1/signaling"


@pytest.mark.parametrize("host", ["", "evil.com/path?x=", "a b", "x" * 300, "user@host", "h:99999999"])
def test_a_junk_host_is_not_repeated(host: str) -> None:
    assert url({"host": host}) == "ws://10.0.0.1:8080/v1/signaling"


async def test_an_outbox_keeps_order_and_closes_behind_what_it_holds() -> None:
    outbox = SocketOutbox(most_messages=10, most_bytes=100)
    assert outbox.send("a")
    assert outbox.send("b")
    outbox.close(1000, "done")
    outbox.close(1008, "too late")
    assert not outbox.send("c")
    assert [await outbox.next() for _ in range(3)] == ["a", "b", Close(1000, "done")]


async def test_an_outbox_wakes_its_reader() -> None:
    outbox = SocketOutbox(most_messages=10, most_bytes=100)
    reading = asyncio.create_task(outbox.next())
    await asyncio.sleep(0)
    outbox.send("a")
    assert await asyncio.wait_for(reading, 5) == "a"


@pytest.mark.parametrize("text", ["x", "x" * 60])
async def test_a_full_outbox_gives_its_socket_up(text: str) -> None:
    outbox = SocketOutbox(most_messages=3, most_bytes=100)
    while outbox.send(text):
        assert not outbox.closing
    assert outbox.closing
    assert await outbox.next() == Close(1008, "reads too slowly")


def test_a_rate_allows_a_burst_and_then_what_it_sustains() -> None:
    clock = ManualClock()
    rate = MessageRate(clock, rate=10.0, burst=5)
    assert [rate.allows() for _ in range(6)] == [True] * 5 + [False]
    clock.advance(0.1)
    assert [rate.allows(), rate.allows()] == [True, False]
    clock.advance(3600.0)
    assert [rate.allows() for _ in range(6)] == [True] * 5 + [False]


def test_the_log_filter_takes_tokens_out() -> None:
    record = logging.LogRecord(
        "uvicorn.error",
        logging.INFO,
        "",
        0,
        '%s - "WebSocket %s" 401',
        ("1.2.3.4", "/v1?a=1&token=abc.d"),
        None,
    )
    assert JoinTokenFilter().filter(record)
    assert record.getMessage() == '1.2.3.4 - "WebSocket /v1?a=1&token=[redacted]" 401'
    plain = logging.LogRecord("uvicorn.error", logging.INFO, "", 0, "hello %s", ("you",), None)
    assert JoinTokenFilter().filter(plain)
    assert plain.getMessage() == "hello you"
