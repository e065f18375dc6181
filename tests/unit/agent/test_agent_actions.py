"""speak, send, log: what they hand on, and what they say of arguments that are wrong."""

from __future__ import annotations

import enum
import json

import pytest

from voicethere import agent as sdk
from voicethere.agent.process import session_of_handler
from voicethere.agent.speech import SpeechOutcome

CALLS = {
    "speak": lambda: sdk.speak("s1", "hi"),
    "send_to_client": lambda: sdk.send_to_client("s1", {}),
    "send_binary_to_client": lambda: sdk.send_binary_to_client("s1", b""),
    "broadcast_to_clients": lambda: sdk.broadcast_to_clients({}, ["s1"]),
    "disconnect_client": lambda: sdk.disconnect_client("s1"),
    "agent_log": lambda: sdk.agent_log("info", "hi"),
}


@pytest.mark.parametrize("name", CALLS)
def test_outside_of_a_child_the_words_say_where_it_works(name):
    with pytest.raises(RuntimeError, match=rf"^{name}\(\) works only while the agent runs on VoiceThere"):
        CALLS[name]()


async def test_everything_is_handed_to_the_link(link):
    assert await sdk.speak("s1", "hi") is SpeechOutcome.PLAYED
    sdk.send_to_client("s1", {"ä": [1, 2.5, None, True, "x"], 3: ()})
    sdk.send_binary_to_client("s1", memoryview(b"12"))
    sdk.broadcast_to_clients([1], iter(["s1", "s2"]))
    sdk.disconnect_client("s1", "bye")
    sdk.agent_log("warn", ValueError("x"), {"a": 1}, session_id="s9")
    token = session_of_handler.set("s3")
    sdk.agent_log("info", "of the handler")
    session_of_handler.reset(token)
    assert link.calls == [
        ("speak", "s1", "hi"),
        ("send_to_client", "s1", '{"ä":[1,2.5,null,true,"x"],"3":[]}'),
        ("send_binary_to_client", "s1", b"12", "sync"),
        ("send_to_client", "s1", "[1]"),
        ("send_to_client", "s2", "[1]"),
        ("disconnect_client", "s1", "bye"),
        ("log", "warn", "x", {"a": 1}, "s9"),
        ("log", "info", "of the handler", None, "s3"),
    ]


async def test_an_async_iterable_is_handed_on_unread(link):
    async def parts():
        raise AssertionError("read")
        yield ""

    stream = parts()
    await sdk.speak("s1", stream)
    assert link.calls == [("speak_stream", "s1", stream)]


class Level(enum.StrEnum):
    HIGH = "high"


def test_enums_are_the_json_that_json_dumps_makes(link):
    sdk.send_to_client("s1", {Level.HIGH: Level.HIGH})
    assert json.loads(link.calls[0][2]) == {"high": "high"}


cyclic: list[object] = []
cyclic.append({"a": cyclic})
deep: list[object] = []
for _ in range(5000):
    deep = [deep]


@pytest.mark.parametrize(
    ("payload", "kind", "words"),
    [
        (object(), TypeError, "payload is an object, which JSON cannot hold"),
        ({"a": [1, {2}]}, TypeError, "payload['a'][1] is a set, which JSON cannot hold"),
        ({"a": b"x"}, TypeError, "payload['a'] is a bytes"),
        ({(1, 2): 3}, TypeError, "payload has a tuple as a key ((1, 2)); JSON keys are strings"),
        ([float("nan")], ValueError, "payload[0] is nan, which JSON cannot say"),
        ({"x": {"y": float("inf")}}, ValueError, "payload['x']['y'] is inf"),
        (["\ud800"], ValueError, "payload[0] is no Unicode text"),
        (cyclic, ValueError, "payload[0]['a'] refers to something that holds it"),
        (deep, ValueError, "is nested more than 100 levels deep"),
        ("x" * 65535, ValueError, "takes at most 65536 bytes of JSON, this payload has 65537"),
        ("ä" * 40000, ValueError, "this payload has 80002"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_payload_that_cannot_be_sent_is_explained(link, payload, kind, words):
    with pytest.raises(kind) as caught:
        sdk.send_to_client("s1", payload)
    assert words in str(caught.value)
    assert str(caught.value).startswith("send_to_client()")
    assert link.calls == []


def test_64_kib_are_sent(link):
    sdk.send_to_client("s1", "x" * 65534)
    sdk.send_binary_to_client("s1", bytes(65536))
    assert len(link.calls) == 2


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (
            lambda: sdk.speak(3, "hi"),
            TypeError,
            "takes a session id (ctx.session_id, a str), not int",
        ),
        (
            lambda: sdk.speak("s1", None),
            TypeError,
            "speak() takes a str or an async iterable of str as text, not NoneType",
        ),
        (lambda: sdk.speak("s1", ["a"]), TypeError, "not list"),
        (
            lambda: sdk.speak("s1", (part for part in "ab")),
            TypeError,
            "not generator; an `async def` with `yield` makes an async one",
        ),
        (lambda: sdk.speak("s1", "x" * 16385), ValueError, "at most 16384 characters as text"),
        (
            lambda: sdk.speak("s1", "a\udc80"),
            ValueError,
            "half of a surrogate pair at character 1",
        ),
        (lambda: sdk.speak("s" * 300, "hi"), ValueError, "at most 256 characters as session id"),
        (lambda: sdk.send_binary_to_client("s1", "x"), TypeError, "takes bytes as data, not str"),
        (
            lambda: sdk.send_binary_to_client("s1", b"", "other"),
            ValueError,
            "and 'control', not 'other'",
        ),
        (lambda: sdk.send_binary_to_client("s1", bytes(65537)), ValueError, "send them in parts"),
        (lambda: sdk.broadcast_to_clients({}, "s1"), TypeError, "a list of session ids, not one str"),
        (lambda: sdk.broadcast_to_clients({}, ["s1", None]), TypeError, "takes a session id"),
        (lambda: sdk.disconnect_client("s1", 4), TypeError, "takes a str as reason, not int"),
        (lambda: sdk.agent_log("warning", "x"), ValueError, "not 'warning'; did you mean 'warn'?"),
        (lambda: sdk.agent_log(3, "x"), ValueError, "knows the levels debug, info, warn, error, not 3"),
        (lambda: sdk.agent_log("info", "x", ["a"]), TypeError, "takes a dict as fields, not list"),
        (lambda: sdk.agent_log("info", "x", session_id=4), TypeError, "takes a session id"),
    ],
)
def test_wrong_arguments_are_explained(link, call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
    assert link.calls == []


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"type": "chat", "text": "hello"}, "hello"),
        ('{"type": "chat", "text": "hello"}', "hello"),
        ({"type": "chat", "text": 3}, None),
        ({"type": "chat"}, None),
        ({"type": "other", "text": "hello"}, None),
        ({"text": "hello"}, None),
        ("hello", None),
        ("[" * 100_000, None),
        ([], None),
        (None, None),
    ],
)
def test_parse_chat_text(message, text):
    assert sdk.parse_chat_text(message) == text
