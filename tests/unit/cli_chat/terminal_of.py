"""The real terminal client on Textual's headless driver, and a talk that notes what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.app import App
from textual.pilot import Pilot

from voicethere.chat import ChatStore, EventLog, TimelineEntity, actions
from voicethere.cli.chat.app import ChatApp

CONV = "conv-1"


class NotingTalk:
    """Notes what it is asked; `raises` is raised by the next `send`."""

    window_id = "window"

    def __init__(self, store: ChatStore) -> None:
        self.store = store
        self.asked: list[str] = []
        self.raises: Exception | None = None

    async def send(self, text: str) -> None:
        self.asked.append(f"send {text}")
        raises, self.raises = self.raises, None
        if raises is not None:
            raise raises

    async def retry(self) -> None:
        self.asked.append("retry")

    async def reconnect(self) -> None:
        self.asked.append("reconnect")

    def clear_error(self) -> None:
        self.asked.append("clear_error")
        self.store.dispatch(actions.clear_error(CONV))


class Terminal:
    """The application, and what its state is made of."""

    def __init__(
        self, app: ChatApp, pilot: Pilot[Any], store: ChatStore, log: EventLog, talk: NotingTalk
    ) -> None:
        self.app, self.pilot, self.store, self.log, self.talk = app, pilot, store, log, talk

    async def say(self, entity_id: str, role: str, content: str, **props: Any) -> None:
        """A message in the timeline."""
        entity = TimelineEntity(entity_id, "message", 1, props={"role": role, "content": content, **props})
        await self.dispatch(actions.upsert_entity(CONV, entity))

    async def fail(self, **fields: Any) -> None:
        """An error in the state."""
        await self.dispatch(actions.push_error(CONV, **fields))

    async def dispatch(self, *given: Any) -> None:
        """Any actions; drawn when this returns."""
        for action in given:
            self.store.dispatch(action)
        await self.drawn()

    async def press(self, *keys: str) -> None:
        """Keys, and what they lead to."""
        await self.pilot.press(*keys)
        await self.drawn()

    async def write(self, text: str) -> None:
        """Each character as a key."""
        await self.press(*("space" if char == " " else char for char in text))

    async def drawn(self) -> None:
        """Wait until nothing is left to be drawn: what is drawn may itself lead to more."""
        for _ in range(4):
            await self.pilot.pause(0)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what a timer of the application leads to.

        Raises:
            TimeoutError: it did not within 10 s.
        """
        async with asyncio.timeout(10):
            while not condition():
                await self.pilot.pause(0.01)

    @property
    def said(self) -> list[str]:
        """The notices that popped up."""
        return [notice.message for notice in self.app._notifications]

    @property
    def lines(self) -> list[str]:
        """What is on the screen, line by line."""
        return screen_lines(self.app)

    @property
    def text(self) -> str:
        """What is on the screen, as words: lines that were wrapped are joined."""
        return " ".join(" ".join(self.lines).split())


def screen_lines(app: App[Any]) -> list[str]:
    """What is on the screen of any application, line by line."""
    return [strip.text for strip in app.screen._compositor.render_strips(app.size)]


@asynccontextmanager
async def terminal(
    tmp_path: Path,
    *,
    size: tuple[int, int] = (80, 24),
    no_color: bool = False,
    opened: asyncio.Event | None = None,
) -> AsyncIterator[Terminal]:
    """A client of `size` columns and rows, its conversation connected, and open (once `opened` is set)."""
    store, log = ChatStore(duplicate_window_ms=0), EventLog()
    talk = NotingTalk(store)

    @asynccontextmanager
    async def opening() -> AsyncIterator[NotingTalk]:
        if opened is not None:
            await opened.wait()
        yield talk

    app = ChatApp(store, log, CONV, opening(), export_folder=tmp_path, no_color=no_color)
    async with app.run_test(size=size) as pilot:
        shown = Terminal(app, pilot, store, log, talk)
        await shown.drawn()
        await shown.dispatch(actions.set_connection_status(CONV, "connected"))
        yield shown
