"""What belongs to the process as a whole: the one agent that its bundle defines, and its link to the runner.

A child runs one bundle, and SDK functions are called from any of its tasks and threads (which inherit no
context variables), so these two are process-wide by nature. They live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from voicethere.agent.definition import Agent
    from voicethere.agent.speech import Speech


class Link(Protocol):
    """What the SDK's functions need of a running child. Every method may be called from any thread."""

    def speak(self, session_id: str, text: str) -> Speech: ...

    def speak_stream(self, session_id: str, source: AsyncIterable[str]) -> Speech:
        """Read `source` on the child's event loop."""

    def send_to_client(self, session_id: str, payload: str) -> None:
        """`payload` is JSON text."""

    def send_binary_to_client(self, session_id: str, data: bytes, channel: str) -> None: ...

    def disconnect_client(self, session_id: str, reason: str | None) -> None: ...

    def log(
        self, level: str, message: str, fields: Mapping[str, Any] | None, session_id: str | None
    ) -> None: ...


class AgentProcess:
    """The agent that was defined in this process, and the link of the child that runs it."""

    __slots__ = ("agent", "link")

    def __init__(self) -> None:
        self.agent: Agent | None = None
        self.link: Link | None = None


this_process = AgentProcess()

session_of_handler: ContextVar[str | None] = ContextVar("session_of_handler", default=None)
"""The session whose handler (or a task that it started) is running here."""


def running_link(function: str) -> Link:
    """The link, for the SDK function of this name.

    Raises:
        RuntimeError: this process is not an agent's child.
    """
    if this_process.link is None:
        raise RuntimeError(
            f"{function}() works only while the agent runs on VoiceThere: deploy the bundle, or load it "
            f"with `voicethere agent verify FILE`. A unit test replaces {function} with a fake."
        )
    return this_process.link
