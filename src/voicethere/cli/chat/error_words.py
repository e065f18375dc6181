"""An error record in words: what happened, and what the person in front of the terminal can do.

Session error codes are explained by their catalog; everything else by kind, stage and HTTP status. Pure: it
knows no widget and no connection.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

from voicethere.chat import ChatErrorKind, ChatErrorRecord, ChatErrorStage
from voicethere.cli.chat import keys
from voicethere.errors import CATALOG, CodeInfo, SessionErrorCode


class ErrorWords(NamedTuple):
    """`title` says what happened, `message` is the record's own, `advice` what to do now. Not escaped."""

    title: str
    message: str
    advice: str


_ENDED_QUIETLY = SessionErrorCode.SESSION_IDLE_TIMEOUT
_BY_CODE: dict[SessionErrorCode, str] = {
    SessionErrorCode.AGENT_HANDLER_FAILED: "The agent failed",
    SessionErrorCode.AGENT_CHILD_CRASHED: "The agent crashed",
    SessionErrorCode.RUNNER_INTERNAL: "The platform failed",
    SessionErrorCode.SESSION_END_FAILED: "The session could not be ended cleanly",
    SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED: "The agent failed while it was idle",
    SessionErrorCode.IDLE_TIMEOUT_CALLBACK_TIMED_OUT: "The agent took too long while it was idle",
    SessionErrorCode.SESSION_IDLE_TIMEOUT: "The session ended: nothing happened for a while",
    SessionErrorCode.PROVISIONING_FAILED: "The session could not be started",
    SessionErrorCode.PROVISIONING_TIMEOUT: "Starting the session took too long",
    SessionErrorCode.WEBRTC_CONNECTION_FAILED: "The connection to the agent failed",
    SessionErrorCode.WEBRTC_CONNECTION_CLOSED: "The connection to the agent was lost",
    SessionErrorCode.WEBRTC_CONNECT_TIMEOUT: "The agent was not reached in time",
}
_RETRY = f"{keys.RETRY.shown} tries again."
_RECONNECTS = f"It is opened again by itself; {keys.RECONNECT.shown} does it now."

_BY_KIND: dict[ChatErrorKind, tuple[str, str]] = {
    ChatErrorKind.WS_ERROR: ("The connection failed", _RECONNECTS),
    ChatErrorKind.WS_CLOSE: ("The connection was closed", _RECONNECTS),
    ChatErrorKind.HYDRATE_ERROR: (
        "What was said before could not be read",
        f"What comes from now on is shown. {keys.RECONNECT.shown} reads it again.",
    ),
    ChatErrorKind.SEM_DECODE_ERROR: (
        "The server sent something that cannot be read",
        f"The conversation goes on without it. {keys.DEBUG.shown} shows what came; if it comes again, is "
        "this a chat server?",
    ),
}
_RUNTIME_BY_STAGE: dict[ChatErrorStage, tuple[str, str]] = {
    ChatErrorStage.CONNECT: (
        "No connection to the server",
        f"Is it running, and is the address right? {keys.RECONNECT.shown} tries again.",
    ),
    ChatErrorStage.SEND: (
        "Your message was not sent",
        f"Is the server running? {keys.RETRY.shown} sends it again.",
    ),
}
_HTTP_BY_STATUS: dict[int, tuple[str, str]] = {
    401: (
        "The server does not know the key",
        "Check --key, or run `voicethere login`; `voicethere api-keys list` shows the keys there are.",
    ),
    403: (
        "The key is not allowed to do this",
        "Use a key of this project: a client key in the address, or an administration key with --project.",
    ),
    404: (
        "The server has nothing at this address",
        "Check the address, the key and the conversation id (a project may require ids that it issued).",
    ),
    413: ("The message is too long", "Send it in parts."),
    429: ("The limit is reached for now", f"Wait a little, then {keys.RETRY.shown}."),
}


def error_words(record: ChatErrorRecord) -> ErrorWords:
    """What to show of it while it is current."""
    info = catalog_entry(record)
    if info is not None:
        return ErrorWords(_code_title(info), record.message, _code_advice(info, record))
    title, advice = _usual(record)
    if not record.recoverable and record.kind is not ChatErrorKind.HTTP_ERROR:
        advice = f"Trying again will not help. {keys.ERRORS.shown} shows all that is known."
    return ErrorWords(title, record.message, advice)


def error_facts(record: ChatErrorRecord) -> list[tuple[str, str]]:
    """Everything that is known of it but its title, as headings and texts. Not escaped."""
    words = error_words(record)
    facts = [("Message", words.message), ("What to do", words.advice)]
    info = catalog_entry(record)
    if info is not None:
        facts += [
            ("When it comes", info.when),
            ("Cause", info.cause),
            ("For the operator", info.remedy),
        ]
    repeats = (record.details or {}).get("repeats")
    facts += [
        ("Kind and stage", f"{record.kind}, {record.stage}"),
        ("Code", record.code or ""),
        ("HTTP status", "" if record.status is None else str(record.status)),
        ("Recoverable", "yes: trying again may help" if record.recoverable else "no"),
        ("Came again", f"{repeats} times" if repeats else ""),
        ("At", clock_time(record.at, date=True)),
        ("Source", record.source or ""),
        ("Id", record.id),
        ("Details", json.dumps(record.details, ensure_ascii=False, indent=2) if record.details else ""),
    ]
    return [(heading, text) for heading, text in facts if text]


def catalog_entry(record: ChatErrorRecord) -> CodeInfo | None:
    """What the catalog says of the record's code, where that is a session error code."""
    try:
        return CATALOG[SessionErrorCode(record.code or "")]
    except ValueError:
        return None


def clock_time(at_ms: int, *, date: bool = False) -> str:
    """Epoch milliseconds as the time here; "?" for what no calendar has."""
    try:
        moment = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z" if date else "%H:%M:%S")


def _usual(record: ChatErrorRecord) -> tuple[str, str]:
    if record.kind is ChatErrorKind.HTTP_ERROR:
        return _http(record)
    if record.kind is ChatErrorKind.RUNTIME_ERROR and record.stage in _RUNTIME_BY_STAGE:
        return _RUNTIME_BY_STAGE[record.stage]
    if record.kind in _BY_KIND:
        return _BY_KIND[record.kind]
    return f"Something failed ({record.stage})", _RETRY


def _http(record: ChatErrorRecord) -> tuple[str, str]:
    what = "Your message was refused" if record.stage is ChatErrorStage.SEND else "The server refused"
    status = record.status
    if status is None:
        return what, _RETRY
    if status in _HTTP_BY_STATUS:
        return _HTTP_BY_STATUS[status]
    if status >= 500:
        return f"The server has a problem of its own ({status})", f"Wait a little, then {keys.RETRY.shown}."
    if 300 <= status < 400:
        return f"The server sent us elsewhere ({status})", "Use the address that it names, if you trust it."
    return f"{what} ({status})", "Change what the message says is wrong, and send it again."


def _code_title(info: CodeInfo) -> str:
    return f"{_BY_CODE[info.code]} ({info.code})"


def _code_advice(info: CodeInfo, record: ChatErrorRecord) -> str:
    if info.code is _ENDED_QUIETLY:
        return "Nothing is broken: your next message starts a new session."
    if record.recoverable:
        return f"The session goes on. {_RETRY}"
    return (
        f"Your next message starts a new session. Why it failed: {keys.ERRORS.shown}, or `voicethere errors "
        f"explain {info.code}`."
    )
