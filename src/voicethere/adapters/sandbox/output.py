"""A child's standard output and error, pumped into bounded memory.

The pump always reads on, so that no child blocks for ever on a full pipe, but neither faster than
`READ_BYTES_PER_SECOND` (a flood must not take the runner's processor) nor does it keep more than its
budget: what is past it is dropped, counted, and told in a line of its own.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable

from voicethere.adapters.sandbox.lines import LineAssembler, TokenBucket
from voicethere.core.ports import OutputLine

KEPT_BYTES_AT_ONCE = 256 * 1024
KEPT_BYTES_PER_SECOND = 64 * 1024
UNREAD_BYTES = 512 * 1024
READ_BYTES_PER_SECOND = 64 * 1024 * 1024

_CHUNK = 64 * 1024
_PAUSE_SECONDS = 0.02
_LEFT_IN_A_PIPE = 1024 * 1024
_LINE_COST = 64  # what a line takes beside its text, so that a flood of empty lines is bounded as well


class _Pump:
    """Reads one pipe until it is closed; hands over chunks."""

    def __init__(self, descriptor: int, take: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = descriptor
        self._take = take
        self._ended = ended
        self._pace = TokenBucket(
            burst=READ_BYTES_PER_SECOND // 10, per_second=READ_BYTES_PER_SECOND, now=self._loop.time()
        )
        self._resume: asyncio.TimerHandle | None = None
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        assert self._descriptor is not None
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._take(data)
        self._pace.spend(len(data))
        if self._pace.refill(self._loop.time()) < 0:
            self._loop.remove_reader(self._descriptor)
            self._resume = self._loop.call_later(_PAUSE_SECONDS, self._continue)

    def _continue(self) -> None:
        self._resume = None
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._read)

    def drain(self) -> None:
        """Take what the ended child left in the pipe, then close."""
        taken = 0
        while self._descriptor is not None and taken < _LEFT_IN_A_PIPE:
            try:
                data = os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                break
            if not data:
                break
            self._take(data)
            taken += len(data)
        self.close()

    def close(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self._ended()


class ChildOutput:
    """Both streams of one child; takes over the read ends of its pipes."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: deque[OutputLine] = deque()
        self._unread = 0
        self._dropped = {"stdout": 0, "stderr": 0}
        self._budget = TokenBucket(
            burst=KEPT_BYTES_AT_ONCE, per_second=KEPT_BYTES_PER_SECOND, now=self._loop.time()
        )
        self._changed = asyncio.Event()
        self._open = 2
        self._pumps = [self._pump("stdout", stdout), self._pump("stderr", stderr)]

    def _pump(self, stream: str, descriptor: int) -> _Pump:
        assembler = LineAssembler()

        def take(data: bytes) -> None:
            assembler.put(data)
            while (text := assembler.next_line()) is not None:
                if not self._keep(stream, text):
                    # Not line by line: a flood of line ends must not take the runner's time.
                    self._dropped[stream] += assembler.skip_lines()

        def ended() -> None:
            if (text := assembler.finish()) is not None:
                self._keep(stream, text)
            self._tell_dropped(stream)
            self._open -= 1
            self._changed.set()

        return _Pump(descriptor, take, ended)

    def _keep(self, stream: str, text: str) -> bool:
        """Whether there was room for this line."""
        size = len(text.encode()) + 1
        cost = size + _LINE_COST
        if self._unread + cost > UNREAD_BYTES or self._budget.refill(self._loop.time()) < cost:
            self._dropped[stream] += size
            return False
        self._tell_dropped(stream)
        self._budget.spend(cost)
        self._append(OutputLine(stream, text), cost)
        return True

    def _tell_dropped(self, stream: str) -> None:
        if self._dropped[stream]:
            self._append(OutputLine(stream, f"… {self._dropped[stream]} bytes of output dropped"), _LINE_COST)
            self._dropped[stream] = 0

    def _append(self, line: OutputLine, cost: int) -> None:
        self._lines.append(line)
        self._unread += cost
        self._changed.set()

    async def lines(self) -> AsyncIterator[OutputLine]:
        """Lines as they come, until both streams are closed and everything kept is given."""
        while True:
            while self._lines:
                line = self._lines.popleft()
                self._unread -= len(line.text.encode()) + 1 + _LINE_COST
                yield line
            self._unread = 0
            if not self._open:
                return
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """The child has ended: take what is left in the pipes, close them. `lines` gives it still."""
        for pump in self._pumps:
            pump.drain()
