"""The client of a chat session: a conversation, which chat gateways keep and reach over the relay.

What the session says goes into the outbox, and over the relay until a gateway has stored it. The conversation
is there from the start; it is lost where nobody stores anything for a while, and back with the next thing
that is stored. Knows no sockets, no frames and no database: those are the gateways'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from voicethere.core.chat_outbox import ChatOutbox, Output
from voicethere.errors import SessionErrorEnvelope
from voicethere.wire.control_channel import EndReason, SessionClose
from voicethere.wire.relay import (
    ChatBody,
    ChatClosed,
    ChatFailure,
    ChatMessage,
    ChatOutput,
    ChatPassed,
    ChatPromptTaken,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
    ToService,
)

_log = structlog.get_logger(__name__)

AGAIN_SECONDS = 1.0
"""How often what nobody has stored is said again."""
GATHER_SECONDS = 0.1
"""How far the parts of a stream are apart at least: each costs a gateway its place in a transaction, and its
sockets a message with the whole text so far. What the agent says meanwhile is one part."""


class NotStored(Exception):
    """The agent said what no chat gateway has stored; the words say how much."""


class ChatLegEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What the leg calls, on the event loop.

    `opened`: somebody stores what the session says (again). `lost`: nobody has for a while. `broken`: more
    waits than is kept. `prompt`: a user's text; whether the session keeps it for its agent, until that takes
    it (`prompt_taken`). `remark`: a line for the agent's log.
    """

    opened: Callable[[], None]
    lost: Callable[[], None]
    broken: Callable[[BaseException], None]
    prompt: Callable[[str], bool]
    remark: Callable[[str], None]


class _Stream:
    def __init__(self, speech_id: str) -> None:
        self.speech_id = speech_id
        self.text = ""


class ChatLeg:
    """`send` puts a message on the relay; with nothing stored for `lost_seconds` the conversation is lost."""

    def __init__(
        self,
        *,
        session_id: str,
        lost_seconds: float,
        send: Callable[[ToService], None],
        events: ChatLegEvents,
        outbox: ChatOutbox | None = None,
    ) -> None:
        self._session_id = session_id
        self._lost_seconds = lost_seconds
        self._send = send
        self._events = events
        self._outbox = outbox or ChatOutbox()
        self._streams: dict[int, _Stream] = {}
        self._told: set[str] = set()
        self._prompts = 0
        self._prompts_taken = 0
        self._stored_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._part_said_at = -GATHER_SECONDS
        self._gathering: asyncio.TimerHandle | None = None
        self._flushes: dict[asyncio.Future[None], int] = {}
        self._lost = False
        self._full = False
        self._closing = False
        self._closed = False
        self._remarked: set[str] = set()

    # ------------------------------------------------------------------ from the relay

    def open(self) -> None:
        """The session begins, and its conversation is there."""
        self._events.opened()

    def prompted(self, number: int, text: str) -> None:
        """The session's prompt `number`: kept once, in order, and answered as often as it comes.

        One that waits for its agent is not answered: where the session ends before it is taken, it is for the
        next one.
        """
        known = number <= self._prompts_taken
        if number == self._prompts + 1 and not self._closing and self._events.prompt(text):
            self._prompts = number
        if known:
            self._answer_prompts()

    def prompt_taken(self) -> None:
        """The agent has begun with the next one of the prompts that were kept."""
        self._prompts_taken += 1
        self._answer_prompts()

    def _answer_prompts(self) -> None:
        self._send(ChatPromptTaken(session_id=self._session_id, number=self._prompts_taken))

    def taken(self, number: int) -> None:
        """A gateway has stored every output up to `number`."""
        if self._closed or not self._outbox.taken(number):
            return
        self._stored_at = self._now()
        stored = self._outbox.last - self._outbox.waiting
        for flush in [flush for flush, last in self._flushes.items() if last <= stored]:
            del self._flushes[flush]
            if not flush.done():
                flush.set_result(None)
        if self._lost:
            self._lost = False
            _log.info("conversation_back", session_id=self._session_id)
            self._events.opened()
        self._say_what_is_due()

    # ------------------------------------------------------------------ the agent's words

    @property
    def speaking(self) -> bool:
        """Whether something is being said that is yet to be made."""
        return bool(self._streams)

    def message(self, speech_id: int, text: str) -> None:
        """The agent said `text`. Each speech of the session has a number of its own."""
        self._put(ChatMessage(speech_id=self._speech(speech_id), text=text))

    def stream_started(self, speech_id: int) -> None:
        """The agent begins to say something that is yet to be made."""
        stream = self._streams[speech_id] = _Stream(self._speech(speech_id))
        self._put(ChatStreamStart(speech_id=stream.speech_id))

    def stream_text(self, speech_id: int, text: str) -> None:
        """More of it. Ignored where there is no such stream (any more)."""
        stream = self._streams.get(speech_id)
        if stream is not None and text:
            stream.text += text
            self._put(ChatStreamText(speech_id=stream.speech_id, delta=text, cumulative=stream.text))

    def stream_ended(self, speech_id: int, complete: bool) -> None:
        """There is no more of it. Ignored where there is no such stream (any more)."""
        stream = self._streams.pop(speech_id, None)
        if stream is not None:
            end = ChatStreamEnd(speech_id=stream.speech_id, text=stream.text, complete=complete)
            self._put(end, reserved=True)

    def _speech(self, number: int) -> str:
        """Unique in the conversation, whose sessions follow each other."""
        return f"{self._session_id}-{number}"

    def pass_on(self, payload: str) -> None:
        """The agent's `send_to_client`: JSON text."""
        self._put(ChatPassed(payload=payload))

    # ------------------------------------------------------------------ the platform's

    def tell(self, error_id: str, envelope: SessionErrorEnvelope) -> None:
        """An error of the session, once; what was being said is over before it."""
        if error_id not in self._told:
            self._told.add(error_id)
            self._end_streams()
            self._put(ChatFailure(error_id=error_id, envelope=envelope), reserved=True)

    def send_close(self, close: SessionClose) -> None:
        """Said at the very end, for every way to end."""

    def closing(self, end_reason: EndReason) -> None:
        """The last output. What the agent still says is not said any more."""
        if not self._closing:
            self._end_streams()
            self._put(ChatClosed(end_reason=end_reason), reserved=True)
            self._closing = True

    def _end_streams(self) -> None:
        for speech_id in tuple(self._streams):
            self.stream_ended(speech_id, complete=False)

    def notify(self, message: msgspec.Struct) -> None:
        """A conversation has no use for it."""
        _log.info("not_for_a_conversation", session_id=self._session_id, kind=type(message).__name__)

    def send_binary(self, data: bytes, channel: str) -> bool:
        """Dropped, with a line in the agent's log: a conversation has no binary data."""
        words = "dropped: send_binary_to_client does nothing in a chat session, which has no binary channel"
        if words not in self._remarked:
            self._remarked.add(words)
            self._events.remark(words)
        return False

    # ------------------------------------------------------------------ what only a room has

    @property
    def track(self) -> None:
        """A conversation has no audio."""
        return None

    @property
    def max_message_size(self) -> None:
        """What is said is bounded where it is made."""
        return None

    def joined(self, peer_id: str) -> None:
        """Nobody joins a conversation's room."""

    def left(self, peer_id: str) -> None:
        """Nobody joins a conversation's room."""

    def signalled(self, peer_id: str, text: str) -> None:
        """Nobody joins a conversation's room."""

    # ------------------------------------------------------------------ the end

    async def flush(self, seconds: float) -> bool:
        """Wait until everything said so far is stored; False after `seconds`: the conversation is lost."""
        if not self._outbox.waiting:
            return True
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes[stored] = self._outbox.last
        try:
            async with asyncio.timeout(seconds):
                await stored
        except TimeoutError:
            self._lose()
            return False
        finally:
            self._flushes.pop(stored, None)
        return True

    async def aclose(self) -> None:
        """Say nothing more.

        Raises:
            NotStored: something that the agent said is lost. Errors and the end are not: they have rows.
        """
        self._closed = True
        for timer in (self._timer, self._gathering):
            if timer is not None:
                timer.cancel()
        self._timer = self._gathering = None
        if lost := self._outbox.words_waiting:
            raise NotStored(f"no chat gateway has stored the last {lost} things that the agent said")

    # ------------------------------------------------------------------ saying it

    def _put(self, body: ChatBody, *, reserved: bool = False) -> None:
        if self._closing or self._closed:
            return
        if not self._outbox.waiting:
            self._stored_at = self._now()
        if self._outbox.put(body, reserved=reserved):
            self._say_what_is_due()
        elif not self._full:
            self._full = True
            silent = self._now() - self._stored_at
            self._events.broken(
                NotStored(
                    f"{self._outbox.waiting} things that the agent said wait for a chat gateway to store "
                    f"them, which has stored nothing for {silent:.1f} s; no more are kept"
                )
            )

    def _say_what_is_due(self) -> None:
        early = self._part_said_at + GATHER_SECONDS - self._now()
        for output in self._outbox.due(gathering=early > 0):
            if isinstance(output.body, ChatStreamText):
                self._part_said_at = self._now()
            self._say(output)
        if early > 0 and self._outbox.unsent and self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(early, self._gathered)
        if self._outbox.waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._say_again)

    def _gathered(self) -> None:
        self._gathering = None
        self._say_what_is_due()

    def _say_again(self) -> None:
        self._timer = None
        if not self._outbox.waiting:
            return
        silent = self._now() - self._stored_at
        if silent >= self._lost_seconds:
            self._lose()
        if silent >= AGAIN_SECONDS:
            for output in self._outbox.again():
                self._say(output, again=True)
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._say_again)

    def _say(self, output: Output, *, again: bool = False) -> None:
        self._send(
            ChatOutput(
                session_id=self._session_id,
                number=output.number,
                body=output.body,
                again=again,
                prompts=self._prompts_taken,
            )
        )

    def _lose(self) -> None:
        if not self._lost and not self._closed and self._outbox.waiting:
            self._lost = True
            _log.warning("conversation_lost", session_id=self._session_id, waiting=self._outbox.waiting)
            self._events.lost()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
