"""Addresses of a gateway, waits between connections, and the limits of a client: what is taken."""

from __future__ import annotations

from typing import Any

import pytest

from voicethere.chat import ChatLimits, ChatStore, ChatTimings, ConversationManager, Reconnecting
from voicethere.chat.endpoints import Endpoints
from voicethere.chat.gateway import checked_headers
from voicethere.chat.http import failure_words
from voicethere.chat.reconnecting import Backoff


@pytest.mark.states("sem-chat/base", "sem-chat/connect/wss")
@pytest.mark.parametrize(
    ("base", "prefix", "socket"),
    [
        ("http://h", "", "ws://h/ws?conv_id=c"),
        ("https://h:8443/c/key/", "", "wss://h:8443/c/key/ws?conv_id=c"),
        ("https://h/c/key", "/chat-api/v1/", "wss://h/c/key/chat-api/v1/ws?conv_id=c"),
        ("http://[::1]:80/x", "y", "ws://[::1]:80/x/y/ws?conv_id=c"),
    ],
)
def test_addresses_are_below_base_and_prefix(base: str, prefix: str, socket: str) -> None:
    """sem-chat: "Paths are relative to a base prefix that clients can configure"."""
    endpoints = Endpoints(base, prefix)
    assert endpoints.socket("c") == socket
    http = socket.replace("ws", "http", 1).removesuffix("/ws?conv_id=c")
    assert endpoints.prompts == f"{http}/chat"
    assert endpoints.timeline("a b&c=d/é") == f"{http}/api/timeline?conv_id=a+b%26c%3Dd%2F%C3%A9"


def test_profile_and_registry_are_only_there_when_set() -> None:
    assert Endpoints("http://h").socket("c", "p", "r") == "ws://h/ws?conv_id=c&profile=p&registry=r"
    assert Endpoints("http://h").socket("c", None, "") == "ws://h/ws?conv_id=c"


@pytest.mark.parametrize(
    ("base", "prefix", "words"),
    [
        ("host/c/key", "", "http or https address with a host"),
        ("ws://h", "", "http or https address with a host"),
        ("http://", "", "http or https address with a host"),
        ("http://h:99999", "", "not an address"),
        ("http://[::1", "", "not an address"),
        ("http://user:secret@h", "", "pass an Authorization header"),
        ("http://h/?x=1", "", "neither a query nor a fragment"),
        ("http://h/\r\nx: y", "", "spaces or control characters"),
        ("http://h", "a?b", "prefix must be a path"),
    ],
)
def test_an_address_that_is_none_is_refused_with_words(base: str, prefix: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        ConversationManager(ChatStore(), base, prefix=prefix)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (["a"], "must be a mapping"),
        ({"a": 5}, "strings as names and values"),
        ({"a b": "x"}, "is not a header's name"),
        ({"a": "secret\r\nb: c"}, "the value of the header a must be printable"),
        ({"a": "sécret"}, "the value of the header a must be printable"),
    ],
)
def test_headers_that_are_none_are_refused_without_showing_their_values(headers: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words) as raised:
        checked_headers(headers)
    assert "cret" not in str(raised.value)


def test_waits_grow_to_the_longest_and_begin_anew() -> None:
    asked: list[float] = []

    def most(low: float, high: float) -> float:
        assert low == 0
        asked.append(high)
        return high

    backoff = Backoff(Reconnecting(first=1, factor=3, longest=10, stable=5), uniform=most)
    assert [backoff.next(held) for held in (0, 0, 4.9, 0, 5, 0)] == [1, 3, 9, 10, 1, 3]
    assert asked == [1, 3, 9, 10, 1, 3]


def test_waits_are_random() -> None:
    backoffs = [Backoff(Reconnecting()) for _ in range(20)]
    waits = {backoff.next(0) for backoff in backoffs}
    assert len(waits) > 1
    assert all(0 <= wait <= 0.5 for wait in waits)


@pytest.mark.parametrize(
    "fields", [{"first": 0}, {"factor": 0.5}, {"first": 2, "longest": 1}, {"stable": float("inf")}]
)
def test_waits_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Reconnecting(**fields)


def test_limits_and_timings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="frame_bytes must be at least 1, not 0"):
        ChatLimits(frame_bytes=0)
    with pytest.raises(TypeError, match="snapshot_bytes must be a whole number, not float"):
        ChatLimits(snapshot_bytes=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prompt_timeout must be more than 0"):
        ChatTimings(prompt_timeout=0)
    with pytest.raises(ValueError, match="grace must be"):
        ChatTimings(grace=-1)
    assert ChatTimings(open_wait=0, grace=0).grace == 0


def test_what_the_machine_said_is_told_and_not_its_wrapping() -> None:
    wrapping = RuntimeError("all attempts failed")
    wrapping.__cause__ = ExceptionGroup("these", [ConnectionRefusedError(111, "Connection refused")])
    assert failure_words(wrapping) == "[Errno 111] Connection refused"
    assert failure_words(RuntimeError("a\x1b\nb" + "c" * 500)) == "a\ufffd b" + "c" * 295 + "…"
    assert failure_words(ValueError()) == "ValueError"
