"""Failures outside of hooks: tasks that nobody awaits, callbacks, threads.

A task that raised may still be awaited: only where nobody will, or nobody did in time, is it a failure.

- Nothing refers to it any more: reported at once (asyncio notices when it frees the task).
- Something does: after the hook that was running for its session has returned, and another
  `GRACE_SECONDS`, unless its exception was retrieved by then.

Knows which session a task was started in, from the context that it was started with. It does not know what
becomes of a failure (`report`).
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any

from voicethere.agent.process import session_of_handler

GRACE_SECONDS = 1.0

_SESSION = "voicethere_session"


class BackgroundFailures:
    """Watches one event loop and the process's threads.

    `report(session_id, hook, error)` is called on the loop; `session_id` is None where it cannot be told.
    `running_hook(session_id)` is the task of the hook that runs for the session now, if any.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        report: Callable[[str | None, str, BaseException], None],
        note: Callable[[str], None],
        running_hook: Callable[[str | None], asyncio.Task[None] | None],
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._loop = loop
        self._report = report
        self._note = note
        self._running_hook = running_hook
        self._grace_seconds = grace_seconds
        self._held: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def install(self) -> None:
        """Watch from now on."""
        self._loop.set_task_factory(self._new_task)
        self._loop.set_exception_handler(self._loop_exception)
        threading.excepthook = self._thread_exception

    def settle(self, session_id: str) -> None:
        """The session is over: nobody will come any more for the tasks that failed in it."""
        for task in list(self._held):
            if getattr(task, _SESSION, None) == session_id:
                self._report_held(task)

    def _new_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        context: Context | None = options.get("context")
        session_id = session_of_handler.get() if context is None else context.get(session_of_handler)
        setattr(task, _SESSION, session_id)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        # This callback is the task's first, so whoever awaits it now has yet to be told; and it must not
        # keep the task: that nothing else does is what asyncio reports at once.
        if never_retrieved(task):
            self._loop.call_soon(self._consider, weakref.ref(task))

    def _consider(self, task_ref: weakref.ref[asyncio.Task[Any]]) -> None:
        task = task_ref()
        if task is None or not never_retrieved(task):
            return
        self._held.add(task)
        hook = self._running_hook(getattr(task, _SESSION, None))
        if hook is None:
            self._start_grace(task_ref)
        else:
            hook.add_done_callback(lambda _: self._start_grace(task_ref))

    def _start_grace(self, task_ref: weakref.ref[asyncio.Task[Any]]) -> None:
        self._loop.call_later(self._grace_seconds, self._grace_is_over, task_ref)

    def _grace_is_over(self, task_ref: weakref.ref[asyncio.Task[Any]]) -> None:
        task = task_ref()
        if task is not None:
            self._report_held(task)

    def _report_held(self, task: asyncio.Task[Any]) -> None:
        self._held.discard(task)
        if never_retrieved(task):
            error = task.exception()
            if error is not None:
                self._report(getattr(task, _SESSION, None), "background_task", error)

    def _loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, BaseException):
            self._on_loop(self._note, str(context.get("message", "the event loop reported a problem")))
            return
        future = context.get("task") or context.get("future")
        session_id = getattr(future, _SESSION, None)
        kind = "background_task" if isinstance(future, asyncio.Task) else "callback"
        handle_context = getattr(context.get("handle"), "_context", None)
        if isinstance(handle_context, Context):
            session_id = handle_context.get(session_of_handler)
        self._on_loop(self._report, session_id, kind, error)

    def _thread_exception(self, failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
            self._on_loop(self._report, None, "background_thread", failure.exc_value)

    def _on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        # asyncio frees a task in whichever thread lets go of it last.
        self._loop.call_soon_threadsafe(function, *arguments)


def never_retrieved(task: asyncio.Task[Any]) -> bool:
    """Whether the task raised and nobody has looked at the exception yet.

    asyncio keeps just that flag, to log a traceback when it frees the task, and has no public name for it.
    """
    return task.done() and not task.cancelled() and bool(getattr(task, "_log_traceback", False))
