"""JSON Schema of every JSON boundary, one document per page of the wire contract.

Generated from the message types, never written by hand. Each document's `$id` is a relative name
(`control-channel.json`), so that a set of them can be put under any address. `python -m
voicethere.wire.schema [DIR]` writes them, or prints them as one JSON object.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from voicethere.errors.records import ErrorRecord, SessionErrorEnvelope
from voicethere.wire import (
    chat_api,
    control_channel,
    control_plane,
    http,
    queue,
    sem,
    session_api,
    settings,
    signaling,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DEFS = "#/$defs/{name}"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One boundary: its title, and the types that a message of it can be."""

    title: str
    messages: tuple[type[msgspec.Struct], ...]


PAGES: Mapping[str, Page] = MappingProxyType(
    {
        "session-api": Page(
            title="Session API: start a session, poll its provisioning",
            messages=(
                session_api.StartSession,
                session_api.SessionQueued,
                session_api.Credentials,
                session_api.SessionState,
            ),
        ),
        "signaling": Page(
            title="Signaling: WebSocket text frames between client, gateway and runner",
            messages=(
                signaling.Join,
                signaling.PeerJoined,
                signaling.PeerLeft,
                signaling.Description,
                signaling.IceCandidate,
                SessionErrorEnvelope,
            ),
        ),
        "control-channel": Page(
            title="The voice-control data channel, both ways",
            messages=(
                control_channel.SessionHello,
                control_channel.Chat,
                control_channel.SpeakRequest,
                control_channel.Keepalive,
                control_channel.SessionClose,
                control_channel.SessionReconnectToken,
                control_channel.SpeechEvent,
                control_channel.AgentSpeak,
                control_channel.LegacyAgentError,
                SessionErrorEnvelope,
            ),
        ),
        "control-plane": Page(
            title="Control plane: projects, builds, deployments, errors, settings, keys",
            messages=(
                control_plane.CreateProject,
                control_plane.DeleteProject,
                control_plane.Project,
                control_plane.ProjectList,
                control_plane.Build,
                control_plane.BuildList,
                control_plane.PromoteBuild,
                control_plane.ActiveBuild,
                control_plane.CreateDeployment,
                control_plane.Deployment,
                control_plane.SessionErrorRow,
                control_plane.ProjectErrors,
                control_plane.SessionErrors,
                control_plane.SessionRow,
                control_plane.SessionList,
                control_plane.ChangeSetting,
                control_plane.SettingsView,
                control_plane.CreateApiKey,
                control_plane.ApiKey,
                control_plane.ApiKeyList,
                control_plane.DeadLetterList,
                control_plane.DeadLetterView,
                control_plane.ReplayDeadLetter,
                control_plane.ReplayAccepted,
                settings.SessionSettings,
                settings.ProjectSettings,
            ),
        ),
        "sem-chat": Page(
            title="SEM chat: prompts, frames and what is in them, timelines",
            messages=(
                chat_api.SubmitPrompt,
                chat_api.PromptAccepted,
                chat_api.IssuedConversation,
                sem.SemFrame,
                sem.LlmStart,
                sem.LlmDelta,
                sem.LlmEnd,
                sem.TimelineUpsert,
                sem.Log,
                sem.AgentMode,
                sem.DebuggerPause,
                sem.TimelineSnapshot,
                SessionErrorEnvelope,
            ),
        ),
        "queue": Page(
            title="The session-errors queue: errors, the ends of sessions behind them, what was suppressed",
            messages=(queue.ErrorItem, queue.SessionEndedItem, queue.SuppressedItem, ErrorRecord),
        ),
        "http-errors": Page(
            title="The body of every HTTP error",
            messages=(http.HttpErrorBody,),
        ),
    }
)


def json_schemas() -> dict[str, dict[str, Any]]:
    """One JSON Schema (2020-12) per page: `{"session-api": {…}, …}`.

    The document accepts any message of its page; each message is in its `$defs` under its own name.
    """
    return {name: _document(name, page) for name, page in PAGES.items()}


def write(directory: Path | str) -> list[Path]:
    """Write every document as `<page>.json` into `directory` (made where it is missing); the paths.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, document in json_schemas().items():
        path = folder / f"{name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        paths.append(path)
    return paths


def _document(name: str, page: Page) -> dict[str, Any]:
    references, definitions = msgspec.json.schema_components(page.messages, ref_template=_DEFS)
    return {
        "$schema": DIALECT,
        "$id": f"{name}.json",
        "title": page.title,
        # More than one may fit, as readers ignore fields that they do not know: hence not "oneOf".
        "anyOf": list(references),
        "$defs": {key: _definition(definitions[key]) for key in sorted(definitions)},
    }


def _definition(schema: dict[str, Any]) -> dict[str, Any]:
    """One type's schema: its `type` tag as every writer sends it, and its description without our indents."""
    if "description" in schema:
        schema = schema | {"description": cleandoc(schema["description"])}
    tag = schema.get("properties", {}).get("type", {}).get("default")
    if tag is not None:
        properties = schema["properties"] | {"type": {"const": tag}}
        schema = schema | {"properties": properties, "required": ["type", *schema.get("required", ())]}
    return schema


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m voicethere.wire.schema",
        description="Write the JSON Schema of every boundary into a folder, or print all of them.",
    )
    parser.add_argument("directory", nargs="?", metavar="DIR", help="where to write <page>.json files")
    directory: str | None = parser.parse_args(arguments).directory
    if directory is None:
        document = msgspec.json.format(msgspec.json.encode(json_schemas()), indent=2)
        sys.stdout.write(document.decode() + "\n")
        return 0
    try:
        paths = write(directory)
    except OSError as error:
        sys.stderr.write(f"cannot write the schemas to {directory}: {error.strerror or error}\n")
        return 1
    for path in paths:
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
