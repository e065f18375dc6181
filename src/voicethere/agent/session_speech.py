"""What an agent says in one session, in the order of its calls to `speak`.

While a stream is being read, what is said after it waits here; everything else leaves at once. Where the
stream is interrupted, so is what waits behind it. That the agent hangs up is told at once, and once more
behind what waited then: so the runner knows when the last words are there. It knows nothing of sounds:
when something was played, the runner says.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable
from typing import NamedTuple

from msgspec.structs import replace

from voicethere.agent.speech import Speech, SpeechOutcome
from voicethere.agent.speeches import Speeches
from voicethere.agent.text_stream import TextStream
from voicethere.wire.ipc import DisconnectClient, FromChild, Speak, SpeakEnd, SpeakStart, SpeakText

MAX_WAITING = 256
"""`speak`s that wait behind a stream, as many as the runner lets wait."""


class _Said(NamedTuple):
    """One `speak`: its number and, piece by piece for a stream, its text."""

    number: int
    parts: list[str]
    stream: TextStream | None


class SessionSpeech:
    """`say`, `stream` and `disconnect` may be called from any thread, the rest belongs to the event loop.

    `failed(session_id, error)`: a stream that was started in this session raised.
    """

    def __init__(
        self,
        session_id: str,
        *,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[FromChild], None],
        speeches: Speeches,
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self._session_id = session_id
        self._loop = loop
        self._send = send
        self._speeches = speeches
        self._failed = failed
        self._lock = threading.Lock()
        self._running: _Said | None = None
        self._waiting: deque[_Said | DisconnectClient] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Nothing is said any more."""
        return self._ended

    def say(self, text: str) -> Speech | None:
        """Say a text; None where nothing is said any more, or too much waits already."""
        return self._add([text], None)

    def stream(self, source: AsyncIterable[str]) -> Speech | None:
        """Say what comes of `source`; None as for `say`, and then it is closed."""
        stream = TextStream(source, self._session_id, self._failed)
        speech = self._add([], stream)
        if speech is None:
            self._loop.call_soon_threadsafe(self._close, stream)
        return speech

    def disconnect(self, message: DisconnectClient) -> None:
        """Tell the runner now, and, where something waits to be said, once more behind it."""
        with self._lock:
            waits = self._running is not None
            self._send(replace(message, more=waits))
            # Once is enough, however often the agent calls.
            if waits and not any(isinstance(said, DisconnectClient) for said in self._waiting):
                self._waiting.append(message)

    def interrupted(self, number: int) -> None:
        """The runner has stopped speech `number`: if that is being read, stop it and all behind it."""
        with self._lock:
            if self._running is not None and self._running.number == number:
                self._stop()

    def end(self) -> None:
        """The session ends: stop everything, and say nothing any more."""
        with self._lock:
            self._ended = True
            self._stop()

    async def closed(self, seconds: float) -> int:
        """Wait for the iterables that were stopped; how many are not closed by then."""
        if not self._closing:
            return 0
        _, open_still = await asyncio.wait(self._closing, timeout=seconds)
        return len(open_still)

    # ------------------------------------------------------------------ under the lock

    def _add(self, parts: list[str], stream: TextStream | None) -> Speech | None:
        with self._lock:
            if self._ended or len(self._waiting) >= MAX_WAITING:
                return None
            number, speech = self._speeches.open(self._session_id, parts)
            self._waiting.append(_Said(number, parts, stream))
            self._go_on()
            return speech

    def _go_on(self) -> None:
        while self._waiting and self._running is None:
            said = self._waiting.popleft()
            if isinstance(said, DisconnectClient):
                self._send(said)
            elif said.stream is None:
                self._send(Speak(session_id=self._session_id, speech_id=said.number, text=said.parts[0]))
            else:
                self._running = said
                self._send(SpeakStart(session_id=self._session_id, speech_id=said.number))
                self._loop.call_soon_threadsafe(self._start, said)

    def _stop(self) -> None:
        stopped = [*self._waiting]
        self._waiting.clear()
        if self._running is not None:
            stopped.append(self._running)
            self._over(self._running.number, complete=False)
        for said in stopped:
            if isinstance(said, DisconnectClient):
                self._send(said)
                continue
            self._speeches.done(self._session_id, said.number, SpeechOutcome.INTERRUPTED)
            if said.stream is not None:
                self._close(said.stream)

    def _over(self, number: int, *, complete: bool) -> None:
        self._running = None
        self._send(SpeakEnd(session_id=self._session_id, speech_id=number, complete=complete))

    # ------------------------------------------------------------------ on the event loop

    def _start(self, said: _Said) -> None:
        if self._running is said and said.stream is not None:
            said.stream.start(
                take=lambda text: self._take(said, text),
                ended=lambda complete: self._read(said, complete=complete),
            )

    def _take(self, said: _Said, text: str) -> None:
        said.parts.append(text)
        self._send(SpeakText(session_id=self._session_id, speech_id=said.number, text=text))

    def _read(self, said: _Said, *, complete: bool) -> None:
        with self._lock:
            self._over(said.number, complete=complete)
            if not complete:
                self._speeches.done(self._session_id, said.number, SpeechOutcome.INTERRUPTED)
            self._go_on()

    def _close(self, stream: TextStream) -> None:
        task = stream.stop()
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
