"""One connection of a conversation: socket, snapshot, frames held back and replayed, and how it ends.

Knows the order of these things and what each records; what an event does is the registry's, and whether
another connection follows the link's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from voicethere.chat.event_log import EventLog, LifecyclePhase
from voicethere.chat.gateway import Gateway, Target
from voicethere.chat.http import ChatHttpError, failure_words
from voicethere.chat.limits import ChatLimits, ChatTimings
from voicethere.chat.socket import SocketEnd
from voicethere.chat.store import ChatStore
from voicethere.chat.timeline_size import TimelineSize
from voicethere.core.chat import actions
from voicethere.core.chat.entity_effects import apply_snapshot
from voicethere.core.chat.errors import ChatErrorKind, ChatErrorStage
from voicethere.core.chat.registry import SemRegistry
from voicethere.core.chat.replay import ReplayBuffer
from voicethere.core.chat.sem_context import SemContext
from voicethere.core.chat.state import ConnectionStatus
from voicethere.core.chat.stream_effects import end_streams
from voicethere.core.ports import Clock
from voicethere.wire.sem import SemEvent, SnapshotReading, UndecodableSem, decode_frame

_SHOWN_CHARS = 200


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """What the connections of all conversations of a manager share."""

    store: ChatStore
    gateway: Gateway
    sem: SemRegistry
    log: EventLog
    limits: ChatLimits
    timings: ChatTimings
    clock: Clock
    sleep: Callable[[float], Awaitable[object]]


class Connection:
    """`run` it once. After `abandon` nothing that comes of it changes anything: the object is its own nonce.

    `on_hydrated` is called once the snapshot was applied or has failed, and what waited for it was applied.
    """

    def __init__(
        self, wiring: Wiring, context: SemContext, target: Target, on_hydrated: Callable[[], None]
    ) -> None:
        self._wiring = wiring
        self._context = context
        self._conv_id = context.conv_id
        self._target = target
        self._on_hydrated = on_hydrated
        self._buffer = ReplayBuffer(
            max_events=wiring.limits.buffered_frames, max_chars=wiring.limits.buffered_bytes
        )
        self._size = TimelineSize(wiring.store, context.conv_id, wiring.limits.timeline_bytes)
        self._open_or_over = asyncio.Event()
        self._hydrated = asyncio.Event()
        self._opened_at: float | None = None
        self._is_open = False
        self._end: SocketEnd | None = None
        self._abandoned = False

    @property
    def held_seconds(self) -> float:
        """For how long the socket has been open, or was until now; 0 where it never was."""
        return 0.0 if self._opened_at is None else self._wiring.clock.monotonic() - self._opened_at

    @property
    def end(self) -> SocketEnd | None:
        """How it ended: once socket and snapshot are both over."""
        return self._end if self._hydrated.is_set() else None

    async def run(self) -> SocketEnd:
        """Open the socket, fetch the snapshot, carry out frames until the socket ends; how it did.

        Everything that fails on the way is recorded.
        """
        self._phase(LifecyclePhase.CONNECT_BEGIN, profile=self._target.profile)
        self._status(ConnectionStatus.CONNECTING)
        try:
            headers = await self._wiring.gateway.headers()
            hydration = asyncio.create_task(self._hydrate(headers), name=f"hydrate-{self._conv_id}")
            try:
                end = await self._read(headers)
                await hydration
            finally:
                hydration.cancel()
                await asyncio.wait([hydration])
            return end
        except Exception as error:
            return self._not_connected(error)
        finally:
            self._finish_hydration()

    def abandon(self) -> None:
        """Let go of the connection: it says and does nothing any more. Cancel `run` to close the socket."""
        if self._abandoned:
            return
        if self._is_open:
            self._phase(LifecyclePhase.WS_CLOSE, "closed by this client")
        end_streams(self._context)
        if self._conv_id in self._wiring.store.state.chat_session:
            # Where the application has cleared it meanwhile, nobody would clear it once more.
            self._status(ConnectionStatus.CLOSED)
        self._abandoned = True
        self._finish_hydration()

    # ------------------------------------------------------------------ the socket

    async def _read(self, headers: Mapping[str, str]) -> SocketEnd:
        socket = self._wiring.gateway.socket(self._conv_id, self._target, headers)
        try:
            end = await socket.read(self._on_open, self._on_frame)
        except _TimelineTooLarge:
            end = SocketEnd(
                failed=True,
                opened=True,
                message=f"the timeline is larger than {self._wiring.limits.timeline_bytes:,} bytes: "
                "no more of it is taken",
                hopeless=True,
            )
        except Exception as error:
            # Whatever the machine or a library thought up: it ends this socket, not the conversation.
            opened = self._opened_at is not None
            words = f"the socket failed: {type(error).__name__}: {failure_words(error)}"
            end = SocketEnd(failed=True, opened=opened, message=words)
        finally:
            self._open_or_over.set()
        self._tell_end(end)
        return end

    def _on_open(self) -> None:
        self._opened_at = self._wiring.clock.monotonic()
        self._is_open = True
        self._phase(LifecyclePhase.WS_OPEN)
        self._status(ConnectionStatus.CONNECTED)
        self._open_or_over.set()

    async def _on_frame(self, frame: str | bytes) -> None:
        if self._abandoned:
            return
        if isinstance(frame, bytes):
            self._undecodable("the frame is binary", repr(frame[:_SHOWN_CHARS])[2:-1][:_SHOWN_CHARS])
            return
        try:
            event = decode_frame(frame)
        except UndecodableSem as error:
            self._undecodable(str(error), frame[:_SHOWN_CHARS])
            return
        if event is None:
            return
        if not self._hydrated.is_set():
            self._phase(LifecyclePhase.FRAME_BUFFERED, event.type)
            self._buffer.add(event, len(frame))
            if self._buffer.is_full:
                # Nothing is lost: the server has to wait until there is room.
                await self._hydrated.wait()
            return
        self._apply(event)
        if self._size.is_exceeded(len(frame)):
            raise _TimelineTooLarge

    def _apply(self, event: SemEvent) -> None:
        self._wiring.log.record_event(self._conv_id, event)
        self._wiring.sem.apply(self._context, event)

    def _tell_end(self, end: SocketEnd) -> None:
        self._is_open, self._end = False, end
        if self._abandoned:
            return
        end_streams(self._context)
        if end.failed:
            details: dict[str, Any] = {"opened": end.opened}
            if end.opened:
                details |= {"code": end.code, "reason": end.reason}
            if end.status is not None:
                details["status"] = end.status
            self._phase(LifecyclePhase.WS_ERROR, end.message, **details)
            self._status(ConnectionStatus.ERROR)
            self._record(
                ChatErrorKind.WS_ERROR, ChatErrorStage.STREAM, end.message, source="socket", details=details
            )
        else:
            self._record(
                ChatErrorKind.WS_CLOSE,
                ChatErrorStage.DISCONNECT,
                end.message,
                source="socket",
                details={"code": end.code, "reason": end.reason},
            )
        self._phase(LifecyclePhase.WS_CLOSE, end.message, code=end.code, reason=end.reason)
        self._status(ConnectionStatus.CLOSED)

    def _not_connected(self, error: Exception) -> SocketEnd:
        words = f"the connection could not be made: {type(error).__name__}: {failure_words(error)}"
        if not self._abandoned:
            self._status(ConnectionStatus.ERROR)
            self._record(ChatErrorKind.RUNTIME_ERROR, ChatErrorStage.CONNECT, words, source="connect")
            self._status(ConnectionStatus.CLOSED)
        self._end = SocketEnd(failed=True, opened=False, message=words)
        return self._end

    # ------------------------------------------------------------------ the snapshot

    async def _hydrate(self, headers: Mapping[str, str]) -> None:
        # Socket first: what changes after the snapshot was made then comes as a frame.
        await self._open_or_waited()
        self._phase(LifecyclePhase.HYDRATE_START)
        try:
            reading = await self._wiring.gateway.timeline(self._conv_id, headers)
            if not self._abandoned:
                self._apply_snapshot(reading)
        except ChatHttpError as error:
            self._not_hydrated(error)
        except Exception as error:
            self._no_snapshot(f"the snapshot could not be applied: {failure_words(error)}", {})
        if not self._abandoned:
            self._replay()
            if self._end is not None:
                # The snapshot may tell of streams, which nothing will end any more.
                end_streams(self._context)
            self._phase(LifecyclePhase.HYDRATE_COMPLETE)
        self._finish_hydration()

    async def _open_or_waited(self) -> None:
        opening = asyncio.ensure_future(self._open_or_over.wait())
        waiting = asyncio.ensure_future(self._wiring.sleep(self._wiring.timings.open_wait))
        try:
            await asyncio.wait([opening, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            opening.cancel()
            waiting.cancel()

    def _apply_snapshot(self, reading: SnapshotReading) -> None:
        applied = apply_snapshot(self._context, reading)
        self._phase(
            LifecyclePhase.HYDRATE_SNAPSHOT_APPLIED, entities=applied.entities, refused=applied.refused
        )

    def _not_hydrated(self, error: ChatHttpError) -> None:
        if error.status is None:
            self._no_snapshot(error.message, {"url": error.url})
            return
        self._phase(LifecyclePhase.HYDRATE_FETCH_FAILED, error.message, status=error.status)
        self._record(
            ChatErrorKind.HTTP_ERROR,
            ChatErrorStage.HYDRATE,
            error.message,
            source="fetch_timeline",
            status=error.status,
            code=error.code,
            details={"url": error.url},
        )

    def _no_snapshot(self, words: str, details: dict[str, Any]) -> None:
        self._phase(LifecyclePhase.HYDRATE_FETCH_ERROR, words)
        self._record(
            ChatErrorKind.HYDRATE_ERROR,
            ChatErrorStage.HYDRATE,
            words,
            source="fetch_timeline",
            details=details,
        )

    def _replay(self) -> None:
        events = self._buffer.drain()
        self._phase(LifecyclePhase.REPLAY_BEGIN, frames=len(events))
        for event in events:
            self._apply(event)
        self._phase(LifecyclePhase.REPLAY_COMPLETE, frames=len(events))

    def _finish_hydration(self) -> None:
        if not self._hydrated.is_set():
            self._hydrated.set()
            self._on_hydrated()

    # ------------------------------------------------------------------ telling

    def _undecodable(self, reason: str, frame: str) -> None:
        self._record(
            ChatErrorKind.SEM_DECODE_ERROR,
            ChatErrorStage.STREAM,
            # The same words for each: a flood of bad frames must not push all else out of the history.
            "a frame of the server could not be read",
            source="decode_frame",
            details={"reason": reason, "frame": frame},
        )

    def _record(self, kind: ChatErrorKind, stage: ChatErrorStage, message: str, **fields: Any) -> None:
        if not self._abandoned:
            self._wiring.store.dispatch(
                actions.push_error(self._conv_id, kind=kind, stage=stage, message=message, **fields)
            )

    def _status(self, status: ConnectionStatus) -> None:
        if not self._abandoned:
            self._wiring.store.dispatch(actions.set_connection_status(self._conv_id, status))

    def _phase(self, phase: LifecyclePhase, summary: str = "", **details: Any) -> None:
        if not self._abandoned:
            self._wiring.log.record_phase(self._conv_id, phase, summary, **details)


class _TimelineTooLarge(Exception):
    pass
