"""A chat client by somebody else: the wire contract, `httpx` and `websockets`, and no tolerance at all.

Everything that it receives must be what the contract says, with its types exactly and nothing beside it:
there are clients that drop a whole snapshot for one bad entity. It shares no code with the platform.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

SECONDS = 30.0
INT64 = 2**63

Json = dict[str, Any]


class Violation(AssertionError):
    """The gateway sent what the contract does not allow."""


def strict_json(text: str) -> Any:
    """JSON as RFC 8259 has it: no NaN, and no name twice in one object."""

    def once(pairs: list[tuple[str, Any]]) -> Json:
        names = [name for name, _ in pairs]
        _require(len(names) == len(set(names)), f"a name comes twice among {names}")
        return dict(pairs)

    def no_constant(name: str) -> Any:
        raise Violation(f"{name} is no JSON")

    return json.loads(text, object_pairs_hook=once, parse_constant=no_constant)


def _require(holds: bool, words: str) -> None:
    if not holds:
        raise Violation(words)


def _object(value: Any, required: set[str], optional: set[str], what: str) -> Json:
    _require(type(value) is dict, f"{what} is no object: {value!r}")
    names = set(value)
    _require(names >= required, f"{what} lacks {required - names}")
    _require(names <= required | optional, f"{what} has unknown {names - required - optional}")
    found: Json = value
    return found


def _text(value: Any, what: str, *, empty: bool = False) -> str:
    _require(type(value) is str and (empty or value != ""), f"{what} is no text: {value!r}")
    found: str = value
    return found


def int64(value: Any, what: str) -> int:
    """proto3 JSON: a number without a fraction, or a string of digits."""
    if type(value) is str:
        _require(re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", value) is not None, f"{what}: {value!r}")
        value = int(value)
    _require(type(value) is int, f"{what} is no whole number: {value!r}")
    _require(-INT64 <= value < INT64, f"{what} does not fit 64 bits")
    number: int = value
    return number


def _moment(value: Any, what: str) -> int:
    at = int64(value, what)
    _require(abs(at / 1000 - time.time()) < 3600, f"{what} is no time of today in milliseconds: {at}")
    return at


def entity(value: Any) -> Json:
    """A timeline entity."""
    found = _object(value, {"id", "kind", "createdAtMs", "updatedAtMs", "props"}, {"meta"}, "an entity")
    _text(found["id"], "entity.id")
    kind = _text(found["kind"], "entity.kind")
    created = _moment(found["createdAtMs"], "createdAtMs")
    _require(_moment(found["updatedAtMs"], "updatedAtMs") >= created, "an entity changed before it was made")
    props = found["props"]
    _require(type(props) is dict, f"props is no object: {props!r}")
    for name, text in _object(found.get("meta", {}), set(), set(found.get("meta", {})), "meta").items():
        _text(text, f"meta.{name}", empty=True)
    if kind == "message":
        _object(props, {"role", "content", "streaming"}, set(), "a message")
        _require(props["role"] in ("user", "assistant"), f"the role {props['role']!r}")
        _text(props["content"], "content", empty=True)
        _require(type(props["streaming"]) is bool, "streaming is no boolean")
        _require(props["role"] == "assistant" or not props["streaming"], "a user does not stream")
    return found


def snapshot(value: Any, conv_id: str) -> Json:
    """The body of `GET /api/timeline`."""
    found = _object(value, {"convId", "version", "serverTimeMs", "entities"}, set(), "a snapshot")
    _require(found["convId"] == conv_id, "the snapshot of another conversation")
    _require(int64(found["version"], "version") >= 0, "a negative version")
    _moment(found["serverTimeMs"], "serverTimeMs")
    _require(type(found["entities"]) is list, "entities is no list")
    ids = [entity(each)["id"] for each in found["entities"]]
    _require(len(ids) == len(set(ids)), "an entity comes twice")
    _require(found["version"] > 0 or not ids, "entities as of no version")
    return found


class StrictSocket:
    """One socket of a conversation.

    With `from_the_start` nothing had been said when it was opened: then every frame is numbered, from 1.
    """

    def __init__(self, conv_id: str, connection: ClientConnection, *, from_the_start: bool) -> None:
        self.conv_id = conv_id
        self.events: list[Json] = []
        self.streams: dict[str, str] = {}
        """The text so far of each stream that runs."""
        self._connection = connection
        self._from_the_start = from_the_start
        self._seq: int | None = 0 if from_the_start else None
        self._version = 0
        self._first_said_by: str | None = None
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._read(), name="strict socket")

    async def until(self, wanted: Callable[[Json], bool], *, since: int = 0) -> Json:
        """The first event like this, from the event number `since` on."""
        async with asyncio.timeout(SECONDS), self._changed:
            while True:
                for event in self.events[since:]:
                    if wanted(event):
                        return event
                if self._task.done():
                    self._task.result()
                    raise Violation("the gateway closed the socket")
                await self._changed.wait()

    async def aclose(self) -> None:
        """Close it. Raises what was wrong with any frame."""
        await self._connection.close()
        await self._task

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._connection.recv()
                _require(type(frame) is str, "a frame is not text")
                event = self._checked(strict_json(str(frame)))
                async with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
        except ConnectionClosed:
            pass
        finally:
            async with self._changed:
                self._changed.notify_all()

    def _checked(self, frame: Any) -> Json:
        _object(frame, {"sem", "event"}, set(), "a frame")
        _require(frame["sem"] is True, "sem is not true")
        event = _object(frame["event"], {"type", "id"}, {"data", "metadata", "seq", "stream_id"}, "an event")
        kind = _text(event["type"], "event.type")
        _text(event["id"], "event.id")
        self._number(event)
        check = getattr(self, "_check_" + kind.replace(".", "_"), None)
        _require(check is not None, f"an unknown type of event: {kind}")
        check(event)
        return event

    def _number(self, event: Json) -> None:
        if "seq" not in event:
            _require(not self._from_the_start, "a frame without a number")
            _require(event["type"] == "timeline.upsert", "what is told again is entities alone")
            return
        seq = int64(event["seq"], "seq")
        _require(type(event["seq"]) is int, "seq is a number")
        _require(self._seq is None or seq == self._seq + 1, f"seq {seq} follows {self._seq}")
        self._seq = seq

    # ------------------------------------------------------------------ by type

    def _check_llm_start(self, event: Json) -> None:
        data = _object(event["data"], {"id", "role"}, set(), "llm.start")
        _require(data["id"] == event["id"], "two ids")
        _require(data["role"] == "assistant", f"the role {data['role']!r}")
        _require(event["id"] not in self.streams, "a stream starts twice")
        self.streams[event["id"]] = ""

    def _check_llm_delta(self, event: Json) -> None:
        data = _object(event["data"], {"id", "delta", "cumulative"}, set(), "llm.delta")
        _require(data["id"] == event["id"], "two ids")
        so_far = self.streams.get(event["id"], "" if not self._from_the_start else None)
        if so_far is None:
            raise Violation("a stream goes on that has not started")
        whole = _text(data["cumulative"], "cumulative")
        _require(not self._from_the_start or whole == so_far + data["delta"], "cumulative is not the sum")
        _require(whole.endswith(_text(data["delta"], "delta")), "cumulative does not end with delta")
        self.streams[event["id"]] = whole

    def _check_llm_final(self, event: Json) -> None:
        data = _object(event["data"], {"id", "text"}, set(), "llm.final")
        _require(data["id"] == event["id"], "two ids")
        if self._from_the_start:
            _require(event["id"] in self.streams, "a stream ends that does not run")
            _require(data["text"] == self.streams[event["id"]], "the final text is not the sum")
        self.streams.pop(event["id"], None)
        for name, value in _object(event.get("metadata", {}), set(), {"durationMs"}, "metadata").items():
            _require(int64(value, name) >= 0, f"{name} is negative")

    def _check_timeline_upsert(self, event: Json) -> None:
        data = _object(event["data"], {"convId", "version", "entity"}, set(), "timeline.upsert")
        _require(data["convId"] == self.conv_id, "an entity of another conversation")
        version = int64(data["version"], "version")
        _require(version > 0, "an upsert without a version")
        found = entity(data["entity"])
        _require(found["id"] == event["id"], "two ids")
        if "seq" in event:
            _require(version > self._version, f"version {version} follows {self._version}")
            self._version = version
        if found["kind"] != "message":
            return
        if self._first_said_by is None:
            self._first_said_by = found["props"]["role"]
            _require(self._first_said_by == "user", "the agent's word comes before the user's")
        if "seq" in event and found["props"]["role"] == "assistant":
            running = self.streams.get(found["id"])
            if found["props"]["streaming"]:
                _require(running == found["props"]["content"], "the message is not what its stream says")
            else:
                _require(running is None, "the message is complete, and its stream runs")

    def _check_agent_message(self, event: Json) -> None:
        _require("data" in event, "agent.message without its payload")

    def _check_session_error(self, event: Json) -> None:
        _require(not self.streams, f"session.error comes while {list(self.streams)} stream")
        data = _object(
            event["data"],
            {"type", "code", "message", "session_id", "project_id", "build_id", "recoverable", "occurred_at"},
            {"customer_context", "stack"},
            "session.error",
        )
        _require(data["type"] == "session_error", "the envelope's type")
        for name in set(data) - {"recoverable", "customer_context"}:
            _text(data[name], name)
        _require(type(data["recoverable"]) is bool, "recoverable is no boolean")
        _require(re.fullmatch(r"[A-Z_]+", data["code"]) is not None, f"the code {data['code']!r}")
        moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
        _require(re.fullmatch(moment, data["occurred_at"]) is not None, "occurred_at")


class StrictClient:
    """The three requests of one base URL."""

    def __init__(self, base_url: str) -> None:
        self._base = base_url
        self._http = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), timeout=SECONDS)

    async def aclose(self) -> None:
        """Close what is open."""
        await self._http.aclose()

    async def say(self, conv_id: str, prompt: str) -> None:
        """Submit a prompt, which must be accepted."""
        answer = await self._http.post(f"{self._base}/chat", json={"prompt": prompt, "conv_id": conv_id})
        _require(answer.is_success, f"{answer.status_code}: {answer.text}")

    async def refused(self, method: str, path: str, **options: Any) -> tuple[int, str, str]:
        """Status, code and words of a request that must fail: words for people, in plain text."""
        answer = await self._http.request(method, self._base + path, **options)
        _require(answer.is_error, f"{method} {path}: {answer.status_code}")
        kind = answer.headers["content-type"].lower()
        _require(kind.startswith("text/plain"), f"an error in {kind}")
        words = answer.text.strip()
        _require(words != "" and words[0] not in "{[<", f"words for people: {words!r}")
        return answer.status_code, answer.headers["x-error-code"], words

    async def timeline(self, conv_id: str) -> Json:
        """The snapshot."""
        answer = await self._http.get(f"{self._base}/api/timeline", params={"conv_id": conv_id})
        _require(answer.status_code == 200, f"{answer.status_code}: {answer.text}")
        kind = answer.headers["content-type"].lower()
        _require(kind.startswith("application/json"), f"a snapshot in {kind}")
        return snapshot(strict_json(answer.text), conv_id)

    async def listen(self, conv_id: str, *, from_the_start: bool) -> StrictSocket:
        """Open a socket."""
        url = f"{self._base.replace('http', 'ws', 1)}/ws?conv_id={conv_id}"
        return StrictSocket(conv_id, await connect(url, max_size=None), from_the_start=from_the_start)
