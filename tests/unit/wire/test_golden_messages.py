"""Messages as the contract's pages write them decode into our types and come out again as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from voicethere.wire.control_channel import client_message_decoder, runner_message_decoder
from voicethere.wire.schema import PAGES
from voicethere.wire.signaling import signaling_decoder
from voicethere.wire.tagged import UndecodableMessage, encode_text

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = sorted(path.stem for path in GOLDEN.glob("*.json"))
COMPLETE = ("session-api", "signaling", "control-channel", "sem-chat", "http-errors")
"""Pages of which every message type has a golden."""

# `The seed's "Error event envelope"`, to the letter.
SEED_ENVELOPE = r"""{
  "type": "session_error",
  "code": "AGENT_CHILD_CRASHED",
  "message": "Sorry, something went wrong.",
  "session_id": "<orchestrator-session-id>",
  "project_id": "<uuid>",
  "build_id": "<uuid>",
  "stack": "Error: …\n  at …",
  "recoverable": false,
  "customer_context": { "userId": "u_123" },
  "occurred_at": "2026-06-19T12:00:00.000Z"
}"""


def messages(page: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / f"{page}.json").read_text(encoding="utf-8"))
    return loaded


def kind(page: str, name: str) -> type[msgspec.Struct]:
    types = {message.__name__: message for message in PAGES[page].messages}
    return types[name.partition("/")[0]]


CASES = [(page, name) for page in FILES for name in messages(page)]


@pytest.mark.parametrize(("page", "name"), CASES)
def test_a_golden_message_survives_the_codec(page: str, name: str) -> None:
    golden = messages(page)[name]
    decoded = msgspec.json.decode(json.dumps(golden), type=kind(page, name))
    assert json.loads(msgspec.json.encode(decoded)) == golden


@pytest.mark.parametrize(("page", "name"), CASES)
def test_a_reader_ignores_fields_that_it_does_not_know(page: str, name: str) -> None:
    golden = messages(page)[name]
    more = json.dumps({"later": {"x": [1]}, **golden, "zzz": None})
    decoded = msgspec.json.decode(more, type=kind(page, name))
    assert json.loads(msgspec.json.encode(decoded)) == golden


@pytest.mark.parametrize("page", COMPLETE)
def test_every_message_type_has_a_golden(page: str) -> None:
    there = {name.partition("/")[0] for name in messages(page)}
    assert there == {message.__name__ for message in PAGES[page].messages}


@pytest.mark.parametrize("page", COMPLETE)
def test_every_field_is_in_some_golden(page: str) -> None:
    """So that no field's name is unchecked."""
    for message in PAGES[page].messages:
        seen = {
            field
            for name, golden in messages(page).items()
            if name.partition("/")[0] == message.__name__
            for field in golden
        }
        ours = {field.encode_name for field in msgspec.structs.fields(message)}
        if message.__name__ != "SessionErrorEnvelope":
            assert seen == ours
        else:
            assert seen <= ours


def test_the_seeds_envelope_comes_out_to_the_letter() -> None:
    decoded = runner_message_decoder.decode(SEED_ENVELOPE)
    ours = encode_text(decoded)
    assert (
        json.loads(ours)
        == json.loads(SEED_ENVELOPE)
        == messages("control-channel")["SessionErrorEnvelope/seed"]
    )
    assert list(json.loads(ours)) == list(json.loads(SEED_ENVELOPE))


def test_recoverable_is_always_sent() -> None:
    for name, golden in messages("control-channel").items():
        if name.startswith("SessionErrorEnvelope"):
            encoded = encode_text(runner_message_decoder.decode(json.dumps(golden)))
            assert '"recoverable":' in encoded


@pytest.mark.parametrize(
    ("page", "decoders"),
    [
        ("signaling", [signaling_decoder]),
        ("control-channel", [client_message_decoder, runner_message_decoder]),
    ],
)
def test_the_tagged_decoders_know_every_type_of_their_page(page: str, decoders: list[Any]) -> None:
    for name, golden in messages(page).items():
        decoded = [
            message for decoder in decoders if (message := decoder.decode(json.dumps(golden))) is not None
        ]
        assert decoded
        assert all(type(message) is kind(page, name) for message in decoded)
        assert json.loads(encode_text(decoded[0])) == golden


@pytest.mark.parametrize("decoder", [signaling_decoder, client_message_decoder, runner_message_decoder])
def test_unknown_types_are_none_and_junk_says_what_is_wrong(decoder: Any) -> None:
    assert decoder.decode('{"type": "from-the-future", "x": 1}') is None
    for junk in (
        "",
        "{",
        "[]",
        "7",
        '"chat"',
        "{}",
        '{"type": 7}',
        '{"type": null}',
        "[" * 100_000,
        b"\xff\xfe",
    ):
        with pytest.raises(UndecodableMessage):
            decoder.decode(junk)
