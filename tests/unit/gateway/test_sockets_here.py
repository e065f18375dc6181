"""The sockets of one process: frames lost between gateways are not waited for for ever."""

from __future__ import annotations

from voicethere.roles.gateway.access import Caller, Credentials
from voicethere.roles.gateway.frame_queue import CatchUp
from voicethere.roles.gateway.here import ChatSocket, SocketsHere
from voicethere.roles.gateway.settings import SocketLimits
from voicethere.testing.clock import ManualClock

CALLER = Caller(
    project_id="p",
    key_id="k",
    credentials=Credentials(base="p"),
    issued_only=False,
    monthly_session_limit=0,
)


async def opened(here: SocketsHere, seq: int) -> ChatSocket:
    """A socket that was told how the conversation stood at this frame."""
    socket = here.open(CALLER, "c")
    assert await socket.queue.next() == CatchUp()
    here.told(socket, seq)
    return socket


async def test_a_frame_that_never_comes_is_replaced_by_the_latest_state() -> None:
    clock = ManualClock()
    here = SocketsHere(clock, SocketLimits(), gap_seconds=1.0)
    socket = await opened(here, 4)
    here.deliver(("p", "c"), 6, ["six"])
    clock.advance(0.9)
    here.tick()
    here.deliver(("p", "c"), 5, ["five"])
    assert [await socket.queue.next(), await socket.queue.next()] == ["five", "six"]
    here.deliver(("p", "c"), 8, ["eight"])
    clock.advance(0.9)
    here.deliver(("p", "c"), 9, ["nine"])
    clock.advance(0.1)
    here.tick()
    assert await socket.queue.next() == CatchUp()
    here.told(socket, 9)
    here.deliver(("p", "c"), 10, ["ten"])
    assert await socket.queue.next() == "ten"


async def test_frames_before_the_first_look_at_the_database_are_no_gap() -> None:
    clock = ManualClock()
    here = SocketsHere(clock, SocketLimits(), gap_seconds=1.0)
    socket = here.open(CALLER, "c")
    here.deliver(("p", "c"), 57, ["fifty-seven"])
    clock.advance(60)
    here.tick()
    assert await socket.queue.next() == CatchUp()
    here.told(socket, 56)
    assert await socket.queue.next() == "fifty-seven"


async def test_who_misses_what_the_database_has_is_told_anew() -> None:
    here = SocketsHere(ManualClock(), SocketLimits(), gap_seconds=1.0)
    socket = await opened(here, 4)
    assert here.projects() == ["p"]
    assert here.compare("p", {"c": 4, "unknown": 9}) == 0
    assert here.compare("p", {"c": 6}) == 0, "it may be on its way"
    here.deliver(("p", "c"), 5, ["five", "six"])
    assert here.compare("p", {"c": 7}) == 0
    assert [await socket.queue.next(), await socket.queue.next()] == ["five", "six"]
    assert here.compare("p", {"c": 7}) == 1
    assert await socket.queue.next() == CatchUp()
    assert here.compare("p", {"c": 7}) == 0


async def test_who_is_gone_is_counted_no_more() -> None:
    here = SocketsHere(ManualClock(), SocketLimits(), gap_seconds=1.0)
    sockets = [await opened(here, 0) for _ in range(3)]
    assert (len(here), here.conversations, here.none_left.is_set()) == (3, 1, False)
    for socket in [*sockets, sockets[0]]:
        here.leave(socket)
    assert (len(here), here.conversations, here.none_left.is_set()) == (0, 0, True)
    here.deliver(("p", "c"), 1, ["to nobody"])
