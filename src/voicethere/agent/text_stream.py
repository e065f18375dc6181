"""One async iterable of text that an agent speaks: read on the child's event loop, part by part.

Parts that come in quick succession leave together, at most one message in 20 ms; none waits for longer. It
knows which text may be spoken; not in which order streams are, nor what becomes of the text.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable
from contextvars import copy_context
from typing import Any, NoReturn

from voicethere.agent.checked_text import check_text
from voicethere.agent.process import session_of_handler
from voicethere.wire.ipc import MAX_SPEAK_CHARS, MAX_STREAM_CHARS

GATHER_SECONDS = 0.02


class TextStream:
    """Made in any thread, from where `speak` was called; all its methods belong to the event loop.

    `failed(session_id, error)` gets what the iterable raised, and the session that it was started in.
    """

    def __init__(
        self, source: AsyncIterable[str], session_id: str, failed: Callable[[str, BaseException], None]
    ) -> None:
        self._source = source
        self._failed = failed
        # What the iterable does is done on behalf of the session in which `speak` was called.
        self._context = copy_context()
        self._started_in = self._context.run(session_of_handler.get) or session_id
        self._context.run(session_of_handler.set, self._started_in)
        self._iterator: Any = source
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._read_out = False
        self._take: Callable[[str], None] | None = None
        self._gathered: list[str] = []
        self._gathered_chars = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, *, take: Callable[[str], None], ended: Callable[[bool], None]) -> None:
        """Begin to read. `take(text)` gets what came, `ended(complete)` its end, unless it is stopped."""
        self._take = take
        self._begin(ended)

    def stop(self) -> asyncio.Task[None]:
        """Take no more from it, and close it; the task is done when it is closed."""
        self._stopped = True
        self._gathered.clear()
        self._stop_timer()
        if self._task is None:
            return self._begin(_nobody)
        if not self._read_out:
            self._task.cancel()
        return self._task

    def _begin(self, ended: Callable[[bool], None]) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._work(ended), name="speak", context=self._context)
        return self._task

    async def _work(self, ended: Callable[[bool], None]) -> None:
        error = await self._outcome_of_reading()
        self._read_out = True
        if not self._stopped:
            self._stop_timer()
            self._pass_on()
            ended(error is None)
        try:
            await self._close()
        except (SystemExit, KeyboardInterrupt):  # the process's end, as anywhere in the child
            raise
        except BaseException as raised:
            error = error or raised
        if error is not None:
            self._failed(self._started_in, error)

    async def _outcome_of_reading(self) -> BaseException | None:
        try:
            if not self._stopped:
                await self._read()
        except (SystemExit, KeyboardInterrupt):
            raise
        except asyncio.CancelledError as cancelled:
            return None if self._stopped else cancelled
        except BaseException as raised:
            return raised
        return None

    async def _read(self) -> None:
        self._iterator = aiter(self._source)
        number = chars = 0
        async for part in self._iterator:
            if self._stopped:  # it would not be cancelled
                return
            number += 1
            try:
                check_text("speak", f"part {number} of a stream", part, MAX_SPEAK_CHARS)
                chars += len(part)
                if chars > MAX_STREAM_CHARS:
                    raise ValueError(
                        f"speak() takes at most {MAX_STREAM_CHARS} characters of one stream, "
                        f"with part {number} these are {chars}"
                    )
            except (TypeError, ValueError) as problem:
                await self._refuse(problem)
            self._gather(part)
            await asyncio.sleep(0)  # one that never waits must not keep the loop from the others

    async def _refuse(self, problem: Exception) -> NoReturn:
        """Raise it at the agent's own `yield` where there is one: that is the line to look at."""
        throw = getattr(self._iterator, "athrow", None)
        if throw is not None:
            with contextlib.suppress(StopAsyncIteration):
                await throw(problem)
        raise problem

    async def _close(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()

    # -- gathering

    def _gather(self, part: str) -> None:
        if self._gathered_chars + len(part) > MAX_SPEAK_CHARS:
            self._pass_on()
        self._gathered.append(part)
        self._gathered_chars += len(part)
        if self._timer is None:
            self._pass_on_and_wait()

    def _pass_on_and_wait(self) -> None:
        self._timer = None
        if self._gathered_chars:
            self._pass_on()
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._pass_on_and_wait)

    def _pass_on(self) -> None:
        text = "".join(self._gathered)
        self._gathered.clear()
        self._gathered_chars = 0
        if text and self._take is not None:
            self._take(text)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nobody(complete: bool) -> None:
    return
