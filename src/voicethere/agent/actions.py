"""What a hook can do: speak, send, disconnect, log.

Everything is checked here, so that a mistake is an exception at the agent's own line, and then handed to
the child's link. All functions are safe from any task or thread of the child and return at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any

from voicethere.agent.checked_text import check_text
from voicethere.agent.payloads import json_text
from voicethere.agent.process import running_link, session_of_handler
from voicethere.agent.speech import Speech
from voicethere.agent.words import did_you_mean
from voicethere.wire.ipc import LOG_LEVELS, MAX_CLIENT_MESSAGE_BYTES, MAX_SPEAK_CHARS

_CHANNELS = ("sync", "control")


def speak(session_id: str, text: str | AsyncIterable[str]) -> Speech:
    """Queue speech for the session's user. Await the result to know whether it was played or interrupted.

    `text` may be an async iterable of str, such as the stream of a language model: it is said as it comes.
    It is read on the child's event loop, from whatever thread this is called, and closed (`aclose`) when it
    is interrupted, when the session ends, and when it fails. What it raises is a handler failure (`speak` as
    the hook) of the session in which this was called. Speech is said in the order of the calls: what is said
    behind a stream waits until the stream is over.

    Empty text counts as played at once. After the session's end this does nothing (`interrupted`).

    Raises:
        TypeError: an argument is of the wrong type. In a stream: a part is not a str.
        ValueError: the text, or a part of a stream, is longer than 16,384 characters, or holds half of a
            surrogate pair; a stream is longer than 262,144 characters.
        RuntimeError: this process is not an agent's child.

    Example:
        >>> async def answer():
        ...     async for chunk in model.stream(question):
        ...         yield chunk.text or ""
        >>> speak(ctx.session_id, answer())
    """
    link = running_link("speak")
    _check_session_id("speak", session_id)
    if isinstance(text, str):
        check_text("speak", "text", text, MAX_SPEAK_CHARS)
        return link.speak(session_id, text)
    if not hasattr(type(text), "__aiter__"):
        raise TypeError(
            f"speak() takes a str or an async iterable of str as text, not {type(text).__name__}{_hint(text)}"
        )
    return link.speak_stream(session_id, text)


def send_to_client(session_id: str, payload: Any) -> None:
    """Send `payload` as JSON to the session's client, on voice-control.

    Raises:
        TypeError: something in the payload cannot be JSON; the words give its path.
        ValueError: it is not finite, refers to itself, or is longer than 64 KiB as JSON.
        RuntimeError: this process is not an agent's child.
    """
    link = running_link("send_to_client")
    _check_session_id("send_to_client", session_id)
    link.send_to_client(session_id, json_text("send_to_client", payload))


def send_binary_to_client(session_id: str, data: bytes, channel: str = "sync") -> None:
    """Send bytes to the session's client, on the `sync` or the `control` channel.

    Raises:
        TypeError: `data` is not bytes-like.
        ValueError: no such channel, or more than 64 KiB.
        RuntimeError: this process is not an agent's child.
    """
    link = running_link("send_binary_to_client")
    _check_session_id("send_binary_to_client", session_id)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"send_binary_to_client() takes bytes as data, not {type(data).__name__}")
    if channel not in _CHANNELS:
        raise ValueError(f"send_binary_to_client() knows the channels 'sync' and 'control', not {channel!r}")
    data = bytes(data)
    if len(data) > MAX_CLIENT_MESSAGE_BYTES:
        raise ValueError(
            f"send_binary_to_client() takes at most {MAX_CLIENT_MESSAGE_BYTES} bytes, these are {len(data)}; "
            "send them in parts"
        )
    link.send_binary_to_client(session_id, data, channel)


def broadcast_to_clients(payload: Any, session_ids: Iterable[str]) -> None:
    """Send the same payload to the clients of several sessions; see `send_to_client`."""
    link = running_link("broadcast_to_clients")
    if isinstance(session_ids, str):
        raise TypeError("broadcast_to_clients() takes a list of session ids, not one str")
    targets = list(session_ids)
    for session_id in targets:
        _check_session_id("broadcast_to_clients", session_id)
    text = json_text("broadcast_to_clients", payload)
    for session_id in targets:
        link.send_to_client(session_id, text)


def disconnect_client(session_id: str, reason: str | None = None) -> None:
    """End the session from the agent's side; `reason` (≤ 1,000 characters) is passed to the client.

    What `speak` was given before is said first, streams too, for up to 15 seconds. Nobody is listened to
    meanwhile.
    """
    link = running_link("disconnect_client")
    _check_session_id("disconnect_client", session_id)
    if reason is not None:
        check_text("disconnect_client", "reason", reason, 1000)
    link.disconnect_client(session_id, reason)


def agent_log(
    level: str, message: object, fields: Mapping[str, Any] | None = None, session_id: str | None = None
) -> None:
    """Write a line to the agent's log; of the session of the running handler, unless told otherwise.

    Past 2,048 characters the message is cut; past 8,192 (as JSON) the fields are replaced by
    `{"preview": ..., "truncated": true}`. What JSON cannot hold is written as its `repr`.

    Raises:
        ValueError: the level is not `debug`, `info`, `warn` or `error`.
        TypeError: `fields` is not a mapping.
        RuntimeError: this process is not an agent's child.
    """
    link = running_link("agent_log")
    if level not in LOG_LEVELS:
        raise ValueError(
            f"agent_log() knows the levels {', '.join(LOG_LEVELS)}, not {level!r}"
            + did_you_mean(str(level), LOG_LEVELS)
        )
    if fields is not None and not isinstance(fields, Mapping):
        raise TypeError(f"agent_log() takes a dict as fields, not {type(fields).__name__}")
    if session_id is not None:
        _check_session_id("agent_log", session_id)
    link.log(level, str(message), fields, session_id if session_id is not None else session_of_handler.get())


def _check_session_id(function: str, session_id: object) -> None:
    if not isinstance(session_id, str):
        raise TypeError(
            f"{function}() takes a session id (ctx.session_id, a str), not {type(session_id).__name__}"
        )
    check_text(function, "session id", session_id, 256)


def _hint(text: object) -> str:
    match type(text).__name__:
        case "coroutine":
            return "; await it first"
        case "generator":
            return "; an `async def` with `yield` makes an async one"
        case _:
            return ""
