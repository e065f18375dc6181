"""The exported JSON Schemas are valid, accept what we send, and refuse what is none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from voicethere.wire.schema import PAGES, json_schemas, main, write

GOLDEN = Path(__file__).parents[2] / "golden"
SCHEMAS = json_schemas()
GOLDENS = [
    (path.stem, name, message)
    for path in sorted(GOLDEN.glob("*.json"))
    for name, message in json.loads(path.read_text(encoding="utf-8")).items()
]


def validator(page: str, name: str | None = None) -> Any:
    schema = SCHEMAS[page]
    if name is not None:
        schema = {**schema, "anyOf": [{"$ref": f"#/$defs/{name}"}]}
    return jsonschema.Draft202012Validator(schema)


def test_there_is_one_document_per_page() -> None:
    assert set(SCHEMAS) == {
        "session-api",
        "signaling",
        "control-channel",
        "control-plane",
        "sem-chat",
        "queue",
        "http-errors",
    }


@pytest.mark.parametrize("page", SCHEMAS)
def test_each_document_is_a_valid_schema_with_a_relative_name(page: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[page])
    assert SCHEMAS[page]["$id"] == f"{page}.json"
    assert {message.__name__ for message in PAGES[page].messages} <= set(SCHEMAS[page]["$defs"])
    assert "\n    " not in json.dumps(SCHEMAS[page])


@pytest.mark.parametrize(
    ("page", "name", "message"), GOLDENS, ids=[f"{page}:{name}" for page, name, _ in GOLDENS]
)
def test_the_schema_accepts_every_golden(page: str, name: str, message: Any) -> None:
    validator(page).validate(message)
    validator(page, name.partition("/")[0]).validate(message)


@pytest.mark.parametrize(
    ("page", "name", "message"),
    [
        ("control-channel", "SessionErrorEnvelope", {"code": "X", "message": "m", "session_id": "s"}),
        (
            "control-channel",
            "SessionErrorEnvelope",
            {"type": "other", "code": "X", "message": "m", "session_id": "s"},
        ),
        ("control-channel", "SessionErrorEnvelope", {"type": "session_error", "code": "X", "message": "m"}),
        ("control-channel", "SessionHello", {"type": "session_hello", "customer_context": "text"}),
        ("control-channel", "SpeechEvent", {"type": "speech_event", "event": "cough", "ts": "t"}),
        ("signaling", "Join", {"type": "join", "room": "r", "peer_id": "client-1"}),
        ("session-api", "StartSession", {}),
        ("sem-chat", "SubmitPrompt", {"prompt": "hello"}),
        ("sem-chat", "SemFrame", {"sem": True, "event": {"type": "log"}}),
        ("sem-chat", "TimelineUpsert", {"version": 1.5, "entity": {"id": "m1", "kind": "message"}}),
        ("session-api", "SessionState", {"session_id": "s", "status": "lost"}),
        ("http-errors", "HttpErrorBody", {"error": {"code": "TEAPOT", "message": "m", "request_id": "r"}}),
        ("control-plane", "SessionSettings", {"idle_timeout_seconds": 29}),
    ],
)
def test_the_schema_refuses_what_is_wrong(page: str, name: str, message: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator(page, name).validate(message)


def test_write_makes_the_folder_and_one_file_per_page(tmp_path: Path) -> None:
    paths = write(tmp_path / "a" / "b")
    assert sorted(path.name for path in paths) == sorted(f"{page}.json" for page in SCHEMAS)
    for path in paths:
        assert json.loads(path.read_text(encoding="utf-8")) == SCHEMAS[path.stem]


def test_the_module_prints_or_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMAS
    assert main([str(tmp_path / "out")]) == 0
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted(SCHEMAS)
    (tmp_path / "file").write_text("x")
    capsys.readouterr()
    assert main([str(tmp_path / "file")]) == 1
    assert "cannot write the schemas to" in capsys.readouterr().err
