"""The conversations of a chat client: reference counts, the grace behind the last of them, prompts.

Knows who uses which conversation. How a socket lives is the link's business.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType

from voicethere.chat.connection import Wiring
from voicethere.chat.conversation import Conversation
from voicethere.chat.endpoints import Endpoints
from voicethere.chat.event_log import EventLog
from voicethere.chat.gateway import Gateway, Headers, Target
from voicethere.chat.http import ChatHttpError, failure_words
from voicethere.chat.limits import ChatLimits, ChatTimings
from voicethere.chat.link import Link
from voicethere.chat.reconnecting import Reconnecting
from voicethere.chat.store import ChatStore
from voicethere.core.chat import actions, checks, selectors
from voicethere.core.chat.actions import Action
from voicethere.core.chat.errors import ChatErrorKind, ChatErrorStage
from voicethere.core.chat.mirror import mirror_errors as start_mirroring
from voicethere.core.chat.registry import SemRegistry
from voicethere.core.chat.sem_context import SemContext
from voicethere.core.chat.session_actions import PushError
from voicethere.core.chat.state import ChatState
from voicethere.core.clock import SystemClock
from voicethere.core.ports import Clock

DEFAULT_RECONNECTING = Reconnecting()


class ConversationManager:
    """Connects any number of conversations of one gateway to a store.

    Args:
        store: where everything that happens is told.
        base_url: the gateway's, such as `https://host/c/vthc_…`; sockets of an `https` one use `wss`.
        profile, registry: sent with every request where set; `connect` may say otherwise for a conversation.
        prefix: a path behind the base.
        headers: sent with every request: a mapping, or a function (plain or async) that gives one for each
            attempt, such as one that renews a token.
        sem: what each event does; the default handlers where not given.
        log: the event log behind a debug panel; a new one where not given.
        mirror_errors: also show each error as an `error` entity in the timeline. A gateway of ours does that.
        reconnect: how long to wait before a lost socket is opened again; None does not open it again.
        limits, timings: see there.
        ssl_context: for `https` bases; the default trusts what the machine trusts.
        clock, sleep: the time, for tests.

    Raises:
        TypeError, ValueError: an argument that is not acceptable, such as a base URL that is none.

    Example:
        >>> async with ConversationManager(store, "https://host/c/vthc_…") as manager:
        ...     async with manager.conversation("conv-1") as conversation:
        ...         await conversation.send("hello")
    """

    def __init__(
        self,
        store: ChatStore,
        base_url: str,
        *,
        profile: str | None = None,
        registry: str | None = None,
        prefix: str = "",
        headers: Headers | None = None,
        sem: SemRegistry | None = None,
        log: EventLog | None = None,
        mirror_errors: bool = False,
        reconnect: Reconnecting | None = DEFAULT_RECONNECTING,
        limits: ChatLimits | None = None,
        timings: ChatTimings | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._default = Target(_label(profile, "profile"), _label(registry, "registry"))
        self._log = log if log is not None else EventLog()
        self._reconnect = reconnect
        self._timings = timings or ChatTimings()
        self._sleep = sleep
        self._clock = clock or SystemClock()
        limits = limits or ChatLimits()
        self._gateway = Gateway(
            Endpoints(base_url, prefix),
            headers=headers,
            limits=limits,
            timings=self._timings,
            ssl_context=ssl_context,
        )
        self._wiring = Wiring(
            store=store,
            gateway=self._gateway,
            sem=sem if sem is not None else SemRegistry(),
            log=self._log,
            limits=limits,
            timings=self._timings,
            clock=self._clock,
            sleep=sleep,
        )
        self._used: dict[str, _Used] = {}
        self._handles: set[Conversation] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._unsubscribe = [store.subscribe(self._log_error)]
        if mirror_errors:
            self._unsubscribe.append(start_mirroring(store))

    async def __aenter__(self) -> ConversationManager:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def store(self) -> ChatStore:
        """The store that this manager tells."""
        return self._store

    @property
    def log(self) -> EventLog:
        """The event log of its conversations."""
        return self._log

    def active_conversation_ids(self) -> tuple[str, ...]:
        """The conversations that are in use, in the order in which they came; not those in their grace."""
        return tuple(conv_id for conv_id, used in self._used.items() if used.users)

    async def connect(self, conv_id: str, *, profile: str | None = None, registry: str | None = None) -> None:
        """Use a conversation; return once its snapshot was applied or something failed, which is recorded.

        Nothing is raised for a server that fails. A conversation that is connected already is reused; with
        another profile or registry than it has it is connected anew. Each `connect` takes one `disconnect`.

        Raises:
            TypeError, ValueError: an argument that is not acceptable.
            RuntimeError: the manager is closed.
        """
        _conv(conv_id)
        target = Target(
            _label(profile, "profile") or self._default.profile,
            _label(registry, "registry") or self._default.registry,
        )
        self._require_open()
        used = self._used.get(conv_id)
        if used is None:
            used = self._used[conv_id] = _Used(SemContext(conv_id, self._store, clock=self._clock))
        used.keep()
        used.users += 1
        if used.link is None or used.link.is_over or used.link.target != target:
            self._connect_anew(used, target)
        else:
            used.link.note_reuse()
            used.link.wake()
        try:
            await used.settled()
        except BaseException:
            self._leave(conv_id)
            raise

    async def reconnect(self, conv_id: str) -> None:
        """Open the conversation's socket anew and fetch its snapshot; return as `connect` does.

        Raises:
            RuntimeError: nobody uses the conversation, or the manager is closed.
        """
        self._require_open()
        used = self._used.get(conv_id)
        if used is None or not used.users:
            raise RuntimeError(f"the conversation {conv_id!r} is not connected: connect it first")
        target = self._default if used.link is None else used.link.target
        self._connect_anew(used, target)
        await used.settled()

    async def send(self, conv_id: str, prompt: str, *, window_id: str | None = None) -> None:
        """Submit the user's prompt; return once the gateway has accepted it. No socket is needed for it.

        The window (the conversation's id where none is given) waits from now on, and shows "the assistant is
        thinking" once the user's message is in the timeline.

        Raises:
            ChatHttpError: it was not accepted; the error is recorded.
            TypeError, ValueError: a blank prompt, or an argument that is not acceptable.
            RuntimeError: the manager is closed.
        """
        _conv(conv_id)
        _text(prompt)
        window = conv_id if window_id is None else window_id
        self._require_open()
        used = self._used.get(conv_id)
        target = self._default if used is None or used.link is None else used.link.target
        if used is not None:
            self._log.record(conv_id, "prompt", "prompt.send", prompt, {"prompt": prompt})
        self._store.dispatch(actions.begin_awaiting_ai(window, conv_id))
        try:
            await self._submit(conv_id, prompt, target)
        except BaseException as error:
            # Cancelled as well: nobody may ever answer.
            self._store.dispatch(actions.clear_awaiting_ai(window))
            if not isinstance(error, ChatHttpError):
                raise
            kind = ChatErrorKind.RUNTIME_ERROR if error.status is None else ChatErrorKind.HTTP_ERROR
            self._store.dispatch(
                actions.push_error(
                    conv_id,
                    kind=kind,
                    stage=ChatErrorStage.SEND,
                    message=error.message,
                    source="submit_prompt",
                    status=error.status,
                    code=error.code,
                    details={"url": error.url},
                )
            )
            raise

    async def disconnect(self, conv_id: str) -> None:
        """Use a conversation no more. Behind its last user the socket stays open for a grace (750 ms).

        Of a conversation that nobody uses nothing changes.
        """
        self._leave(conv_id)

    @asynccontextmanager
    async def conversation(
        self,
        conv_id: str,
        *,
        profile: str | None = None,
        registry: str | None = None,
        window_id: str | None = None,
    ) -> AsyncIterator[Conversation]:
        """Use a conversation for as long as the `async with` lasts.

        `window_id` names the window that shows it, for the "assistant is thinking" placeholder; the
        conversation's own id where none is given.

        Raises:
            TypeError, ValueError, RuntimeError: as `connect`.
        """
        await self.connect(conv_id, profile=profile, registry=registry)
        conversation = Conversation(self, self._store, conv_id, conv_id if window_id is None else window_id)
        self._handles.add(conversation)
        try:
            self._require_open()  # it may have been closed while this connected
            self._store.dispatch(actions.set_window_conversation(conversation.window_id, conv_id))
            yield conversation
        finally:
            self._handles.discard(conversation)
            conversation.close()
            await self.disconnect(conv_id)

    async def aclose(self) -> None:
        """End everything, every `changes()` too, without any grace; return when every socket is closed.

        That takes 1 s at most.
        """
        self._closed = True
        for conversation in self._handles:
            conversation.close()
        for conv_id in tuple(self._used):
            self._end(conv_id)
        while self._closing:
            await asyncio.wait(tuple(self._closing))
        await self._gateway.aclose()
        for unsubscribe in self._unsubscribe:
            unsubscribe()

    async def _submit(self, conv_id: str, prompt: str, target: Target) -> None:
        try:
            headers = await self._gateway.headers()
        except Exception as error:
            raise ChatHttpError(
                f"the prompt could not be sent: {type(error).__name__}: {failure_words(error)}",
                status=None,
                stage=ChatErrorStage.SEND,
                url=self._gateway.prompts_url,
            ) from error
        await self._gateway.submit(conv_id, prompt, target, headers)

    def _connect_anew(self, used: _Used, target: Target) -> None:
        self._let_go(used)
        used.link = Link(self._wiring, used.context, target, self._reconnect)

    def _leave(self, conv_id: str) -> None:
        used = self._used.get(conv_id)
        if used is None or not used.users:
            return
        used.users -= 1
        if not used.users:
            used.grace = asyncio.create_task(self._end_after_grace(conv_id), name=f"grace-{conv_id}")

    async def _end_after_grace(self, conv_id: str) -> None:
        await self._sleep(self._timings.grace)
        self._used[conv_id].grace = None
        self._end(conv_id)

    def _end(self, conv_id: str) -> None:
        used = self._used.pop(conv_id)
        used.keep()
        self._let_go(used)
        self._log.clear(conv_id)

    def _let_go(self, used: _Used) -> None:
        if used.link is not None:
            closing = used.link.abandon()
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            used.link = None

    def _log_error(self, state: ChatState, action: Action) -> None:
        if isinstance(action, PushError) and action.conv_id in self._used:
            error = selectors.select_current_error(state, action.conv_id)
            if error is not None:
                self._log.record(action.conv_id, "error", error.kind, error.message, error)

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("the conversation manager is closed")


class _Used:
    """A conversation in use, or in its grace."""

    def __init__(self, context: SemContext) -> None:
        self.context = context
        self.users = 0
        self.link: Link | None = None
        self.grace: asyncio.Task[None] | None = None

    async def settled(self) -> None:
        """Wait until its link is settled: the newest, where another takes over meanwhile."""
        waited: Link | None = None
        while self.link is not None and self.link is not waited:
            waited = self.link
            await waited.settled()

    def keep(self) -> None:
        """The grace, where there is one, is over without consequence."""
        if self.grace is not None:
            self.grace.cancel()
            self.grace = None


def _conv(conv_id: object) -> None:
    _encodable(checks.identifier(conv_id, "conv_id"), "conv_id")


def _label(value: object, name: str) -> str | None:
    if value is None:
        return None
    return _encodable(checks.identifier(value, name), name)


def _text(prompt: object) -> None:
    if not isinstance(prompt, str):
        raise TypeError(f"the prompt must be a string, not {type(prompt).__name__}")
    if not prompt.strip():
        raise ValueError("the prompt must not be blank")
    _encodable(prompt, "the prompt")


def _encodable(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be Unicode text, without lone surrogates") from error
    return text
