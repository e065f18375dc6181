"""Half a character, as JavaScript sends when it cuts a text anywhere, costs that character alone."""

from __future__ import annotations

import json

import pytest

from voicethere.wire import sem

HIGH, LOW = "\\ud83d", "\\uDE00"


def frame(event: str) -> str:
    return f'{{"sem": true, "event": {event}}}'


def timeline(*entities: str) -> str:
    return f'{{"convId": "c", "entities": [{", ".join(entities)}]}}'


@pytest.mark.parametrize(
    ("escaped", "read"),
    [
        (f"so {HIGH}", "so \ufffd"),
        (f"{LOW} far", "\ufffd far"),
        (f"{HIGH}{HIGH}{LOW}", "\ufffd\U0001f600"),
        (f"{LOW}{HIGH}", "\ufffd\ufffd"),
        (f"\\\\{HIGH[1:]}", "\\ud83d"),
        (f"\\\\\\\\{HIGH}\\n", "\\\\\ufffd\n"),
    ],
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_half_a_character_is_replaced(escaped: str, read: str, as_bytes: bool) -> None:
    delta = frame(f'{{"type": "llm.delta", "id": "m", "data": {{"delta": "{escaped}"}}}}')
    own = frame(f'{{"type": "own", "id": "m", "data": ["{escaped}"]}}')
    entity = f'{{"id": "m", "kind": "message", "props": {{"content": "{escaped}"}}}}'
    snapshot = timeline(entity, '{"id": 5}')
    if as_bytes:
        first, second = sem.decode_frame(delta.encode()), sem.decode_frame(own.encode())
        reading = sem.decode_snapshot(snapshot.encode())
    else:
        first, second = sem.decode_frame(delta), sem.decode_frame(own)
        reading = sem.decode_snapshot(snapshot)
    assert first is not None
    assert first.data == sem.LlmDelta(delta=read)
    assert second is not None
    assert second.data == [read]
    assert [each.props for each in reading.snapshot.entities] == [{"content": read}]
    assert reading.refused == 1
    whole = sem.decode_snapshot(timeline(entity))
    assert [each.props for each in whole.snapshot.entities] == [{"content": read}]


@pytest.mark.parametrize("text", [f'{{"a": "{HIGH}"', f'"{HIGH}" x', f"{HIGH}"])
def test_what_is_no_json_stays_none(text: str) -> None:
    with pytest.raises(sem.UndecodableSem, match="not JSON"):
        sem.decode_frame(text)
    with pytest.raises(sem.UndecodableSem, match="snapshot"):
        sem.decode_snapshot(text)


def test_characters_that_are_whole_are_left_alone() -> None:
    content = "\U0001f600 \ud7ff \ue000 \\ud83d"
    for ascii in (True, False):
        entity = json.dumps({"id": "m", "kind": "k", "props": {"x": content}}, ensure_ascii=ascii)
        (read,) = sem.decode_snapshot(timeline(entity, "5")).snapshot.entities
        assert read.props == {"x": content}
