"""What a chat session has said and nobody has stored yet: numbered, in order, bounded.

Bodies in, numbered outputs out; knows no relay and no clock. Who drives it sends what is `due`, sends what is
on its way once more where it is not heard of (`again`), and says what was stored (`taken`). However the
messages are lost, repeated or reordered on their way: who stores only the output behind the last one that was
stored has stored each once, in order.

Nothing is sent past a window, so that a slow reader is not buried. Parts of one stream that are not on their
way yet become one part, and while one part of a stream is on its way the next ones wait for it: the slower
the reader, the larger the parts.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

import msgspec

from voicethere.wire.relay import (
    ChatBody,
    ChatClosed,
    ChatFailure,
    ChatMessage,
    ChatPassed,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
)

WINDOW_OUTPUTS = 32
WINDOW_SIZE = 256 * 1024
MAX_OUTPUTS = 4096
MAX_SIZE = 8 * 1024 * 1024
"""Sizes are in characters of what was said."""


class Output(msgspec.Struct, frozen=True):
    """One output; `number` counts from 1."""

    number: int
    body: ChatBody


class ChatOutbox:
    """Example:
    >>> outbox = ChatOutbox()
    >>> outbox.put(ChatMessage(speech_id="s-1", text="Hello."))
    True
    >>> [output.number for output in outbox.due()], outbox.waiting
    ([1], 1)
    >>> outbox.taken(1), outbox.waiting
    (True, 0)
    """

    def __init__(
        self,
        *,
        window_outputs: int = WINDOW_OUTPUTS,
        window_size: int = WINDOW_SIZE,
        max_outputs: int = MAX_OUTPUTS,
        max_size: int = MAX_SIZE,
    ) -> None:
        self._window_outputs = window_outputs
        self._window_size = window_size
        self._max_outputs = max_outputs
        self._max_size = max_size
        self._kept: deque[Output] = deque()
        self._under_way = 0
        """How many of those that are kept, from the first on, were sent."""
        self._size = 0
        self.last = 0
        """The newest output's number."""

    @property
    def waiting(self) -> int:
        """How many outputs are not stored yet."""
        return len(self._kept)

    @property
    def unsent(self) -> int:
        """How many of those are not on their way either."""
        return len(self._kept) - self._under_way

    @property
    def words_waiting(self) -> int:
        """How many of those are the agent's, and known to nobody else if they are lost."""
        return sum(not isinstance(output.body, ChatFailure | ChatClosed) for output in self._kept)

    def put(self, body: ChatBody, *, reserved: bool = False) -> bool:
        """Keep it; False where there is no room. For what is `reserved` there always is."""
        merged = self._merged(body)
        size = _size(body) if merged is None else _size(merged) - _size(self._kept[-1].body)
        if not reserved and (
            self._size + size > self._max_size or (merged is None and len(self._kept) >= self._max_outputs)
        ):
            return False
        self._size += size
        if merged is not None:
            self._kept[-1] = Output(self.last, merged)
        else:
            self.last += 1
            self._kept.append(Output(self.last, body))
        return True

    def due(self, *, gathering: bool = False) -> list[Output]:
        """What is to be sent now; from then on it is on its way. While `gathering`, the newest part of a
        stream is not: more of it may follow."""
        under_way = self.again()
        size = sum(_size(output.body) for output in under_way)
        due: list[Output] = []
        for output in islice(self._kept, self._under_way, None):
            size += _size(output.body)
            if under_way and (len(under_way) >= self._window_outputs or size > self._window_size):
                break
            if output.number == self.last and _waits_for_more(output, under_way, gathering=gathering):
                break
            under_way.append(output)
            due.append(output)
        self._under_way = len(under_way)
        return due

    def again(self) -> list[Output]:
        """What is on its way."""
        return list(islice(self._kept, self._under_way))

    def taken(self, number: int) -> bool:
        """Every output up to `number` is stored; whether that is news. What was not sent cannot be."""
        news = False
        while self._under_way and self._kept[0].number <= number:
            self._size -= _size(self._kept.popleft().body)
            self._under_way -= 1
            news = True
        return news

    def _merged(self, body: ChatBody) -> ChatStreamText | None:
        """The last part with this one behind it; None where they do not belong together, or it was sent."""
        if not isinstance(body, ChatStreamText) or len(self._kept) == self._under_way:
            return None
        last = self._kept[-1].body
        if not isinstance(last, ChatStreamText) or last.speech_id != body.speech_id:
            return None
        return ChatStreamText(
            speech_id=body.speech_id, delta=last.delta + body.delta, cumulative=body.cumulative
        )


def _waits_for_more(output: Output, under_way: list[Output], *, gathering: bool) -> bool:
    """Whether it is a part of a stream that is gathered, or the part before it is not stored yet."""
    body = output.body
    if not isinstance(body, ChatStreamText):
        return False
    return gathering or any(
        isinstance(sent.body, ChatStreamText) and sent.body.speech_id == body.speech_id for sent in under_way
    )


def _size(body: ChatBody) -> int:
    match body:
        case ChatMessage(text=text) | ChatStreamEnd(text=text):
            return len(text)
        case ChatStreamText(delta=delta, cumulative=cumulative):
            return len(delta) + len(cumulative)
        case ChatPassed(payload=payload):
            return len(payload)
        case ChatFailure(envelope=envelope):
            return len(msgspec.json.encode(envelope))
        case ChatStreamStart() | ChatClosed():
            return 0
