"""The kinds of sessions in the mix: what each does, and what must have come of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tools.soak.caller import Caller
from tools.soak.losses import break_peer, drop_socket, vanish
from voicethere.client import Session

_CLOSED_BY_CLIENT = "client_close_signal"


async def _talks(caller: Caller, session: Session) -> None:
    for turn in range(3):
        await caller.chats(session, f"turn {turn}")


async def _speaks(caller: Caller, session: Session) -> None:
    await caller.is_understood()
    session.send_chat("speak")
    await caller.hears("echo", lambda message: message["text"] == "speak")
    if not caller.speaker.bytes:
        raise AssertionError("the agent's speech was not heard")


async def _makes_it_raise(caller: Caller, session: Session) -> None:
    await caller.chats(session, "before")
    session.send_chat("raise")
    await caller.over(session)


async def _kills_it(caller: Caller, session: Session) -> None:
    os.kill(caller.agent_pid, signal.SIGKILL)
    await caller.over(session)


async def _loses_its_socket(caller: Caller, session: Session) -> None:
    drop_socket(session)
    await caller.chats_until_heard(session, "after")


async def _loses_its_peer(caller: Caller, session: Session) -> None:
    await break_peer(session)
    await caller.chats_until_heard(session, "after")


async def _vanishes(caller: Caller, session: Session) -> None:
    await caller.chats(session, "here")
    vanish(session)


async def _falls_silent(caller: Caller, session: Session) -> None:
    await caller.over(session)


@dataclass(frozen=True)
class Kind:
    """`project` names the one it calls. `caused` are its stored errors, `told` what the client hears of.

    With `repeats` it may hear of them several times: a busy machine loses a connection that was just made.
    `weight` is its share in the mix; `seconds` is how long it takes where that is more than a few.
    """

    name: str
    project: str
    act: Callable[[Caller, Session], Awaitable[None]]
    weight: int
    caused: tuple[str, ...] = ()
    told: tuple[str, ...] | None = None
    reason: str = _CLOSED_BY_CLIENT
    repeats: bool = False
    seconds: float = 5.0

    @property
    def heard(self) -> list[str]:
        """The codes that the client is told, in order."""
        return list(self.caused if self.told is None else self.told)


KINDS = (
    Kind("talks", "data", _talks, 6),
    Kind("speaks", "voice", _speaks, 3),
    Kind("raises", "data", _makes_it_raise, 3, ("AGENT_HANDLER_FAILED",), reason="agent_error"),
    Kind("raises in a call", "voice", _makes_it_raise, 1, ("AGENT_HANDLER_FAILED",), reason="agent_error"),
    Kind("killed", "data", _kills_it, 2, ("AGENT_CHILD_CRASHED",), reason="agent_error"),
    Kind("killed in a call", "voice", _kills_it, 1, ("AGENT_CHILD_CRASHED",), reason="agent_error"),
    Kind("loses its socket", "data", _loses_its_socket, 1),
    Kind("loses its peer", "data", _loses_its_peer, 1, told=("WEBRTC_CONNECTION_CLOSED",), repeats=True),
    Kind("vanishes", "voice", _vanishes, 1, reason="client_disconnected", seconds=18.0),
    Kind(
        "falls silent",
        "silent",
        _falls_silent,
        1,
        ("SESSION_IDLE_TIMEOUT",),
        reason="idle_timeout",
        seconds=33.0,
    ),
)
