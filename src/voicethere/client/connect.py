"""Joining a session that was started: the one entry to `Session`."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import Any

from voicethere.client.audio import Microphone, PcmSink
from voicethere.client.callbacks import Callback
from voicethere.client.link import BinaryMessage
from voicethere.client.rejoining import REJOIN_DELAYS_SECONDS
from voicethere.client.session import DEFAULT_CONNECT_TIMEOUT, Session, SessionState
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_channel import SpeechEvent
from voicethere.wire.session_api import Credentials, Mode


class Connecting:
    """A session about to be connected: `async with` it, or `await` it and close it yourself."""

    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, Session]:
        return self._connect().__await__()

    async def __aenter__(self) -> Session:
        return await self._connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def _connect(self) -> Session:
        self._session.start()
        try:
            await self._session.wait_connected(self._timeout)
        except BaseException:
            await self._session.abandon()
            raise
        return self._session


def connect_session(
    credentials: Credentials,
    *,
    customer_context: Mapping[str, Any] | None = None,
    on_session_error: Callback[SessionErrorEnvelope] | None = None,
    on_control_message: Callback[Any] | None = None,
    on_speech_event: Callback[SpeechEvent] | None = None,
    on_binary: Callback[BinaryMessage] | None = None,
    on_protocol_problem: Callback[str] | None = None,
    on_state_change: Callback[SessionState] | None = None,
    microphone: Microphone | None = None,
    speaker: PcmSink | None = None,
    send_audio: bool = True,
    mode: Mode | None = None,
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
    rejoin_delays: Sequence[float] = REJOIN_DELAYS_SECONDS,
) -> Connecting:
    """Connect to a session. Callbacks may be plain or async; one that raises is logged, no more.

    Args:
        credentials: from `start_session`.
        customer_context: a JSON object of at most 8 KiB and 8 levels; sent on open.
        on_session_error: every error of the session, once. One that is not `recoverable` is the last.
        on_control_message: what the agent sent, as parsed JSON, and what else no other callback takes.
        on_speech_event: who speaks, what was understood; without it these go to `on_control_message`.
        on_binary: binary frames of either channel.
        on_protocol_problem: words about frames that were ignored because they were not understood.
        on_state_change: the new state: connected, reconnecting, connected again, ended.
        microphone: a source of audio, in modes that have any; silence without one. While the session
            reconnects it is not asked for more: a live source should drop what is too old.
        speaker: a sink for the agent's audio.
        send_audio: False only listens (answers `recvonly`).
        mode: the credentials' own unless given.
        connect_timeout: seconds until `WEBRTC_CONNECT_TIMEOUT`.
        rejoin_delays: seconds before each try to come back after a loss; none for an empty one.

    Raises:
        ValueError: `customer_context` is not acceptable; nothing was sent.
        ConnectError: (when entered or awaited) not connected; `on_session_error` was told.

    Example:
        >>> async with connect_session(credentials, on_session_error=print) as session:
        ...     session.send_chat("hello")
        ...     end = await session.closed
    """
    session = Session(
        credentials,
        customer_context=customer_context,
        on_session_error=on_session_error,
        on_control_message=on_control_message,
        on_speech_event=on_speech_event,
        on_binary=on_binary,
        on_protocol_problem=on_protocol_problem,
        on_state_change=on_state_change,
        microphone=microphone,
        speaker=speaker,
        send_audio=send_audio,
        mode=mode,
        rejoin_delays=rejoin_delays,
    )
    return Connecting(session, connect_timeout)
