"""The conversations on which this process holds sockets, and what each socket is sent.

Knows sockets as queues of frames. What the frames tell is stored elsewhere before it comes here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from voicethere.adapters.http.errors import HttpProblem
from voicethere.core.ports import Clock
from voicethere.roles.gateway.access import Caller
from voicethere.roles.gateway.frame_queue import FrameQueue
from voicethere.roles.gateway.seq_line import SeqLine
from voicethere.roles.gateway.settings import SocketLimits
from voicethere.wire.http import HttpErrorCode

Key = tuple[str, str]
"""`(project id, conversation id)`."""


class ChatSocket:
    """One open socket. Mutable; `queue` is what is to be sent to it."""

    def __init__(self, key: Key, caller: Caller, queue: FrameQueue) -> None:
        self.key = key
        self.caller = caller
        self.queue = queue


class _Conversation:
    def __init__(self) -> None:
        self.sockets: set[ChatSocket] = set()
        self.line = SeqLine(0)
        self.known = False
        self.gap_since: float | None = None
        self.wanted_seq = 0


class SocketsHere:
    """All sockets of this process. `sent` counts frames that were queued for sockets, `dropped` those that
    were not because their socket reads slowly."""

    def __init__(self, clock: Clock, limits: SocketLimits, *, gap_seconds: float) -> None:
        self._clock = clock
        self._limits = limits
        self._gap_seconds = gap_seconds
        self._conversations: dict[Key, _Conversation] = {}
        self._of_project: Counter[str] = Counter()
        self._count = 0
        self._dropped_by_gone = 0
        self.sent = 0
        self.none_left = asyncio.Event()
        """Set while there is no socket."""
        self.none_left.set()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ChatSocket]:
        for conversation in list(self._conversations.values()):
            yield from list(conversation.sockets)

    def __contains__(self, key: Key) -> bool:
        return key in self._conversations

    @property
    def conversations(self) -> int:
        """How many conversations have sockets here."""
        return len(self._conversations)

    @property
    def dropped(self) -> int:
        """Frames that were not kept for sockets that read slowly."""
        return self._dropped_by_gone + sum(socket.queue.dropped for socket in self)

    def open(self, caller: Caller, conv_id: str) -> ChatSocket:
        """A socket on the conversation; `leave` it in any case.

        Raises:
            HttpProblem: 429, there are as many as there may be.
        """
        key = (caller.project_id, conv_id)
        conversation = self._conversations.get(key)
        limits = self._limits
        if self._count >= limits.of_process:
            raise _too_many("This gateway has as many sockets as it may have: try again in a moment.")
        if self._of_project[caller.project_id] >= limits.of_project:
            raise _too_many("This project has as many sockets here as it may have: close some first.")
        if conversation is not None and len(conversation.sockets) >= limits.of_conversation:
            raise _too_many("This conversation has as many sockets as it may have: close one first.")
        if conversation is None:
            conversation = self._conversations[key] = _Conversation()
        queue = FrameQueue(most_frames=limits.queue_frames, most_bytes=limits.queue_bytes)
        socket = ChatSocket(key, caller, queue)
        conversation.sockets.add(socket)
        self._of_project[caller.project_id] += 1
        self._count += 1
        self.none_left.clear()
        return socket

    def leave(self, socket: ChatSocket) -> None:
        """It is gone. Harmless a second time."""
        conversation = self._conversations.get(socket.key)
        if conversation is None or socket not in conversation.sockets:
            return
        conversation.sockets.discard(socket)
        if not conversation.sockets:
            del self._conversations[socket.key]
        self._of_project[socket.key[0]] -= 1
        if not self._of_project[socket.key[0]]:
            del self._of_project[socket.key[0]]
        self._count -= 1
        if not self._count:
            self.none_left.set()
        self._dropped_by_gone += socket.queue.dropped

    def deliver(self, key: Key, first_seq: int, frames: Sequence[str]) -> None:
        """Frames of a conversation, numbered from `first_seq` on, to its sockets: in order, each once."""
        conversation = self._conversations.get(key)
        if conversation is None or not frames:
            return
        self._give_out(conversation, conversation.line.put(first_seq, frames))
        if conversation.line.crowded:
            self._pass_over(conversation)
        elif conversation.known and conversation.line.gap:
            if conversation.gap_since is None:
                conversation.gap_since = self._clock.monotonic()
        else:
            conversation.gap_since = None

    def told(self, socket: ChatSocket, seq: int) -> None:
        """The socket was told how the conversation stood at the frame `seq`; later frames follow."""
        socket.queue.caught_up(seq)
        conversation = self._conversations.get(socket.key)
        if conversation is not None and not conversation.known:
            conversation.known = True
            self._give_out(conversation, conversation.line.known(seq))

    def tick(self) -> None:
        """Wait no longer for frames that were lost between gateways: tell the latest entities instead."""
        now = self._clock.monotonic()
        for conversation in list(self._conversations.values()):
            if conversation.gap_since is not None and now - conversation.gap_since >= self._gap_seconds:
                self._pass_over(conversation)

    def projects(self) -> list[str]:
        """Those that have sockets here."""
        return list(self._of_project)

    def compare(self, project_id: str, seqs: Mapping[str, int]) -> int:
        """What the database has of the project's conversations, by id. Those of whose frames some have not
        come since the last comparison are told anew; how many."""
        behind = 0
        for conv_id, seq in seqs.items():
            conversation = self._conversations.get((project_id, conv_id))
            if conversation is None or not conversation.known:
                continue
            if conversation.line.seq < conversation.wanted_seq:
                behind += 1
                conversation.line.known(seq)
                conversation.gap_since = None
                for socket in conversation.sockets:
                    socket.queue.fall_behind()
            conversation.wanted_seq = seq
        return behind

    def close_all(self, code: int, reason: str) -> None:
        """Close every socket."""
        for socket in self:
            socket.queue.close(code, reason)

    def _give_out(self, conversation: _Conversation, ready: list[tuple[int, list[str]]]) -> None:
        for first_seq, frames in ready:
            for socket in conversation.sockets:
                socket.queue.put(first_seq, frames)
                self.sent += len(frames)

    def _pass_over(self, conversation: _Conversation) -> None:
        conversation.gap_since = None
        if conversation.line.pass_over():
            for socket in conversation.sockets:
                socket.queue.fall_behind()


def _too_many(message: str) -> HttpProblem:
    return HttpProblem(429, HttpErrorCode.RATE_LIMITED, message, headers={"Retry-After": "1"})
