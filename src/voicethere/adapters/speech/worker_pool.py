"""Several sessions share few speech processes: queued with a bound, timed out, replaced when they fail.

Knows nothing of speech. A request that fails is not repeated: the words of its error say what happened,
and the next request gets a fresh process.
"""

from __future__ import annotations

import asyncio

from voicethere.adapters.speech.worker import SpeechWorker
from voicethere.adapters.speech.worker_protocol import FailedReply, ReadyReply, Reply, Request
from voicethere.core.ports import SpeechProviderError


class SpeechWorkerPool:
    """At most `workers` processes of `module`, started when first needed (or by `open`).

    Args:
        name: how errors call it, such as "the speech recognizer".
        module: run as `python -m`.
        waiting: how many requests may wait for a process; more are refused at once.
        timeout_seconds: for one request, waiting not included; the process is killed past it.
        start_timeout_seconds: for a process to become ready.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        workers: int = 1,
        waiting: int = 32,
        timeout_seconds: float = 10.0,
        start_timeout_seconds: float = 20.0,
    ) -> None:
        if workers < 1 or waiting < 0 or timeout_seconds <= 0:
            raise ValueError("a pool needs at least one worker, a bound of 0 or more, and a positive timeout")
        self.name = name
        self._module = module
        self._workers = workers
        self._waiting_limit = waiting
        self._timeout = timeout_seconds
        self._start_timeout = start_timeout_seconds
        self._free = asyncio.Semaphore(workers)
        self._waiting = 0
        self._idle: list[SpeechWorker] = []
        self._busy: set[asyncio.Task[Reply]] = set()
        self._closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that are idle now."""
        return tuple(worker.pid for worker in self._idle)

    async def open(self) -> ReadyReply:
        """Start one process now, so that the first request need not wait; returns what it said when ready.

        Raises:
            SpeechProviderError: it cannot start.
        """
        await self._acquire()
        try:
            worker = await self._next()
            self._idle.append(worker)
            return worker.ready
        finally:
            self._free.release()

    async def request(self, request: Request) -> Reply:
        """The reply of one process. A caller that is cancelled does not disturb the process.

        Raises:
            SpeechProviderError: refused (too many wait, closed), timed out, the process ended or reports
                that the request failed.
        """
        await self._acquire()
        # A task of its own: a cancelled caller must not leave half a reply in the process's socket.
        task = asyncio.create_task(self._exchange(request), name=f"request to {self.name}")
        self._busy.add(task)
        task.add_done_callback(self._done)
        try:
            reply = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # not we were cancelled but the request, by `aclose`
                raise SpeechProviderError(f"{self.name} was closed during the request") from None
            raise
        if isinstance(reply, FailedReply):
            raise SpeechProviderError(f"{self.name} failed: {reply.message}")
        return reply

    def _done(self, task: asyncio.Task[Reply]) -> None:
        self._busy.discard(task)
        self._free.release()
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: then nobody is left to be told

    async def _acquire(self) -> None:
        self._refuse_if_closed()
        if self._free.locked() and self._waiting >= self._waiting_limit:
            raise SpeechProviderError(f"{self.name} is overloaded: {self._waiting} requests are waiting")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        if self._closed:
            self._free.release()
            self._refuse_if_closed()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise SpeechProviderError(f"{self.name} is closed")

    async def _next(self) -> SpeechWorker:
        """An idle process that lives, or a fresh one."""
        while self._idle:
            worker = self._idle.pop()
            if not worker.ended:
                return worker
            await worker.aclose()
        return await SpeechWorker.start(self.name, self._module, timeout_seconds=self._start_timeout)

    async def _exchange(self, request: Request) -> Reply:
        worker = await self._next()
        sound = False
        try:
            async with asyncio.timeout(self._timeout):
                reply = await worker.request(request)
            sound = True
        except TimeoutError:
            raise SpeechProviderError(
                f"{self.name} did not answer within {self._timeout:g} s; its process was killed"
            ) from None
        finally:
            if sound and not self._closed:
                self._idle.append(worker)
            else:
                await worker.aclose()
        return reply

    async def aclose(self) -> None:
        """End every process; requests under way or waiting fail with SpeechProviderError."""
        self._closed = True
        for task in tuple(self._busy):
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        while self._idle:
            await self._idle.pop().aclose()
