"""SEM chat frames and timeline snapshots, as a chat gateway sends them (contract: sem-chat.md).

Knows their shapes and how to read them from a server that nobody vouches for. It does not know what a frame
does to a client's state.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.characters import with_whole_characters

_Message = TypeVar("_Message", bound=msgspec.Struct)
_INT64_MAX = 2**63 - 1
_MOST_PROBLEMS = 20

WholeNumber = (
    Annotated[int, Meta(ge=-(2**63), le=_INT64_MAX)] | Annotated[str, Meta(pattern=r"^-?[0-9]{1,19}$")]
)
"""A 64-bit whole number in proto3 JSON: a number or a string of digits. `whole_number` reads either."""


class UndecodableSem(ValueError):
    """The text is not JSON, or a message of a known type does not have its shape; the words say which."""


class LlmStart(msgspec.Struct, frozen=True, kw_only=True):
    """`llm.start`, `llm.thinking.start`."""

    id: str | UnsetType = UNSET
    role: str | UnsetType = UNSET


class LlmDelta(msgspec.Struct, frozen=True, kw_only=True):
    """`llm.delta`, `llm.thinking.delta`: what was added, and the whole text so far."""

    id: str | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    cumulative: str | UnsetType = UNSET


class LlmEnd(msgspec.Struct, frozen=True, kw_only=True):
    """`llm.final`, `llm.thinking.summary`, and `llm.thinking.final` (without a text)."""

    id: str | UnsetType = UNSET
    text: str | UnsetType = UNSET


class TimelineEntityData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entity of a timeline. Times are epoch milliseconds; absent or 0 means that none was given."""

    id: Annotated[str, Meta(min_length=1)]
    kind: Annotated[str, Meta(min_length=1)]
    created_at_ms: WholeNumber = 0
    updated_at_ms: WholeNumber = 0
    props: dict[str, Any] = {}
    meta: dict[str, str] = {}


class TimelineUpsert(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`timeline.upsert`: the entity as of `version`, the conversation's counter."""

    conv_id: str = ""
    version: WholeNumber = 0
    entity: TimelineEntityData


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """`log`."""

    level: str = "info"
    message: str = ""
    fields: dict[str, Any] | None = None


class AgentMode(msgspec.Struct, frozen=True, kw_only=True):
    """`agent.mode`."""

    title: str = ""
    data: dict[str, Any] | None = None


class DebuggerPause(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`debugger.pause`. `deadline_ms` is in epoch milliseconds."""

    pause_id: str = ""
    phase: str = ""
    summary: str = ""
    deadline_ms: WholeNumber = 0
    extra: dict[str, Any] | None = None


class SemEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What a frame tells.

    `data` is one of the types above where `type` is one of `EVENT_DATA`, else JSON as it came. `metadata` is
    dropped where it is not an object.
    """

    type: str
    id: str
    data: Any = None
    metadata: dict[str, Any] | UnsetType = UNSET
    seq: int | float | UnsetType = UNSET
    stream_id: str | UnsetType = UNSET


class SemFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame as it is sent. `sem` is always true."""

    sem: bool = True
    event: SemEvent


class TimelineSnapshot(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer of `GET {base}/api/timeline`. Every entity is as of `version`."""

    conv_id: str = ""
    version: WholeNumber = 0
    server_time_ms: WholeNumber = 0
    entities: list[TimelineEntityData] = []


class SnapshotReading(NamedTuple):
    """A snapshot without its bad entities. `refused` counts those, `problems` describes the first 20."""

    snapshot: TimelineSnapshot
    refused: int
    problems: tuple[str, ...]


EVENT_DATA: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {
        "llm.start": LlmStart,
        "llm.thinking.start": LlmStart,
        "llm.delta": LlmDelta,
        "llm.thinking.delta": LlmDelta,
        "llm.final": LlmEnd,
        "llm.thinking.summary": LlmEnd,
        "llm.thinking.final": LlmEnd,
        "timeline.upsert": TimelineUpsert,
        "log": Log,
        "agent.mode": AgentMode,
        "debugger.pause": DebuggerPause,
        "session.error": SessionErrorEnvelope,
    }
)
"""The event types that a client knows, and the type of each one's `data`."""


class _Event(msgspec.Struct, frozen=True):
    type: str
    id: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw = msgspec.Raw(b"null")
    seq: int | float | None = None
    stream_id: str | None = None


class _Frame(msgspec.Struct, frozen=True):
    sem: bool
    event: _Event


_EVENTS = {
    msgspec.defstruct(
        f"_{data.__name__}Event",
        [
            ("id", str),
            ("data", data),
            ("metadata", dict[str, Any] | None, None),
            ("seq", int | float | UnsetType, UNSET),
            ("stream_id", str | UnsetType, UNSET),
        ],
        tag_field="type",
        tag=name,
        frozen=True,
        gc=False,
    ): name
    for name, data in EVENT_DATA.items()
}
# Events of known types that are as they should be, which nearly all are, are read at once: that takes a third
# of the time. Whatever this does not take is read again in parts, and only that decides what was wrong.
_KnownFrame = msgspec.defstruct(
    "_KnownFrame", [("sem", bool), ("event", functools.reduce(operator.or_, _EVENTS))], frozen=True, gc=False
)


class _LooseSnapshot(msgspec.Struct, frozen=True, rename="camel"):
    conv_id: str | None = None
    version: WholeNumber | None = None
    server_time_ms: WholeNumber | None = None
    entities: list[msgspec.Raw] | None = None


_known_frame_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_KnownFrame)
_frame_decoder = msgspec.json.Decoder(_Frame)
_json_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_snapshot_decoder = msgspec.json.Decoder(TimelineSnapshot)
_loose_snapshot_decoder = msgspec.json.Decoder(_LooseSnapshot)


def decode_frame(text: str | bytes) -> SemEvent | None:
    """The event of one frame, or None for JSON that is no SEM frame (a reader ignores it).

    Bad `metadata` is left out, half a character is U+FFFD. A known type whose `data` is missing is read as if
    it were empty. As in proto3 JSON, a field that is null is one that was not given (in `props` it stays).

    Raises:
        UndecodableSem: the text is not JSON, or the data of a known type does not have its shape.
    """
    try:
        known = _known_frame_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _read_in_parts(text)
    if not known.sem:
        return None
    event = known.event
    data = event.data
    if type(data) is TimelineUpsert:
        _require_numbers(data)
    return SemEvent(
        type=_EVENTS[type(event)],
        id=event.id,
        data=data,
        metadata=UNSET if event.metadata is None else event.metadata,
        seq=event.seq,
        stream_id=event.stream_id,
    )


def _read_in_parts(text: str | bytes) -> SemEvent | None:
    text = with_whole_characters(text)
    try:
        frame = _frame_decoder.decode(text)
    except msgspec.ValidationError:
        _require_json(text)
        return None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UndecodableSem(f"the frame is not JSON: {_words(error)}") from error
    if not frame.sem:
        return None
    event = frame.event
    return SemEvent(
        type=event.type,
        id=event.id,
        data=_data(event),
        metadata=_metadata(event.metadata),
        seq=UNSET if event.seq is None else event.seq,
        stream_id=UNSET if event.stream_id is None else event.stream_id,
    )


def decode_snapshot(body: str | bytes) -> SnapshotReading:
    """A timeline snapshot, without the entities that are none: one bad entity does not cost the others.

    Raises:
        UndecodableSem: the body is not JSON, or not a snapshot (an object with nothing of one is not).
    """
    try:
        snapshot = _snapshot_decoder.decode(body)
    except msgspec.ValidationError:
        return _without_bad_entities(with_whole_characters(body))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        mended = with_whole_characters(body)
        if mended is not body:
            return decode_snapshot(mended)
        raise UndecodableSem(f"the snapshot is not JSON: {_words(error)}") from error
    if not (snapshot.entities or snapshot.conv_id) or any(map(_numbers_problem, snapshot.entities)):
        return _without_bad_entities(body)
    whole_number(snapshot.version)
    return SnapshotReading(snapshot, 0, ())


def whole_number(value: int | str) -> int:
    """A `WholeNumber` as an integer.

    Raises:
        UndecodableSem: a string of digits that does not fit 64 bits.
    """
    number = value if type(value) is int else int(value)
    if not -_INT64_MAX - 1 <= number <= _INT64_MAX:
        raise UndecodableSem(f"{number} does not fit 64 bits")
    return number


def _data(event: _Event) -> Any:
    kind = EVENT_DATA.get(event.type)
    try:
        data = _json_decoder.decode(event.data) if kind is None else _message(event.data, kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UndecodableSem(f"the data of {event.type[:100]!r} is wrong: {_words(error)}") from error
    if isinstance(data, TimelineUpsert):
        _require_numbers(data)
    return data


def _message(raw: msgspec.Raw, kind: type[_Message]) -> _Message:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError:
        # In proto3 JSON a null stands for what was not given. Looked for last: few senders write it.
        given = _json_decoder.decode(raw)
        fields = {} if given is None else _without_nulls(given)
        if isinstance(fields, dict) and "entity" in fields:
            fields["entity"] = _without_nulls(fields["entity"])
        return msgspec.convert(fields, kind)


def _without_nulls(given: Any) -> Any:
    return (
        {name: value for name, value in given.items() if value is not None}
        if isinstance(given, dict)
        else given
    )


def _require_numbers(data: TimelineUpsert) -> None:
    problem = _numbers_problem(data.entity)
    if problem:
        raise UndecodableSem(f"the data of 'timeline.upsert' is wrong: {problem}")
    whole_number(data.version)


def _metadata(raw: msgspec.Raw) -> dict[str, Any] | UnsetType:
    try:
        found = _json_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return UNSET
    return found if isinstance(found, dict) else UNSET


def _require_json(text: str | bytes) -> None:
    # A wrong shape may be found ahead of the place where the text ceases to be JSON.
    try:
        _json_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UndecodableSem(f"the frame is not JSON: {_words(error)}") from error


def _without_bad_entities(body: str | bytes) -> SnapshotReading:
    try:
        loose = _loose_snapshot_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UndecodableSem(f"the body is not a timeline snapshot: {_words(error)}") from error
    if loose == _LooseSnapshot():
        raise UndecodableSem(
            "the body is not a timeline snapshot: it has none of convId, version, serverTimeMs and entities"
        )
    version = 0 if loose.version is None else loose.version
    whole_number(version)
    entities: list[TimelineEntityData] = []
    problems: list[str] = []
    refused = 0
    for index, raw in enumerate(loose.entities or ()):
        problem: str | None
        try:
            entity = _message(raw, TimelineEntityData)
            problem = _numbers_problem(entity)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            problem = _words(error)
        if problem is None:
            entities.append(entity)
            continue
        refused += 1
        if len(problems) < _MOST_PROBLEMS:
            problems.append(f"entities[{index}]: {problem}")
    snapshot = TimelineSnapshot(
        conv_id=loose.conv_id or "",
        version=version,
        server_time_ms=loose.server_time_ms or 0,
        entities=entities,
    )
    return SnapshotReading(snapshot, refused, tuple(problems))


def _numbers_problem(entity: TimelineEntityData) -> str | None:
    if type(entity.created_at_ms) is int and type(entity.updated_at_ms) is int:
        return None  # the decoder has seen to their bounds
    try:
        whole_number(entity.created_at_ms)
        whole_number(entity.updated_at_ms)
    except UndecodableSem as error:
        return str(error)
    return None


def _words(error: Exception) -> str:
    return str(error)[:300] or type(error).__name__
