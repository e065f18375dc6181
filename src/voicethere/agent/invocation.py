"""Calling one hook: `async` ones as a task, plain ones in a thread of their own.

Either way the hook knows its session (`session_of_handler`), and so do the tasks that it starts. A thread
of its own, not of a pool: a hook that never returns cannot use up the others' threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from voicethere.agent.leaving import leave_if_out_of_memory
from voicethere.agent.process import session_of_handler

Hook = Callable[[Any], Any]


def start_hook(hook: Hook, argument: Any, session_id: str | None) -> asyncio.Task[None]:
    """Begin a call in the session's context. The task ends when the hook does, as the hook does."""
    context = contextvars.copy_context()
    context.run(session_of_handler.set, session_id)
    return asyncio.get_running_loop().create_task(_call(hook, argument), context=context)


async def outcome_of(task: asyncio.Task[None], timeout: float | None = None) -> BaseException | None:
    """What the hook raised, or None.

    Never raises what the hook did; where the hook was cancelled, that is a CancelledError like any other.

    Raises:
        TimeoutError: not done after `timeout` seconds. The hook is cancelled, and not waited for: it may
            refuse, or be a thread, which nothing can stop.
    """
    done, _ = await asyncio.wait({task}, timeout=timeout)
    if not done:
        task.add_done_callback(_forget_outcome)
        task.cancel()
        raise TimeoutError
    if task.cancelled():
        return asyncio.CancelledError("the hook was cancelled")
    error = task.exception()
    if error is not None:
        leave_if_out_of_memory(error)
    return error


def _forget_outcome(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


async def _call(hook: Hook, argument: Any) -> None:
    if _is_async(hook):
        result = hook(argument)
    else:
        result = await _in_thread(hook, argument)
    if inspect.iscoroutine(
        result
    ):  # not any awaitable: `return speak(...)` must not wait until it was played
        await result


def _is_async(hook: Hook) -> bool:
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__)


def _in_thread(hook: Hook, argument: Any) -> Awaitable[Any]:
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if not finished.done():
            finished.set_result((result, error))

    def work() -> None:
        result, error = None, None
        try:
            result = context.run(hook, argument)
        except BaseException as raised:
            error = raised
        loop.call_soon_threadsafe(settle, result, error)

    async def wait() -> Any:
        result, error = await finished
        if error is not None:
            raise error
        return result

    threading.Thread(target=work, name=getattr(hook, "__name__", "hook"), daemon=True).start()
    return wait()
