"""The kinds of conversations in the mix: what each does, and what must have come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tools.soak.chatter import Chatter


async def _bye(chatter: Chatter) -> None:
    async with chatter.present() as conversation:
        await chatter.says(conversation, "bye", "Goodbye.")


async def _converses(chatter: Chatter) -> None:
    """Its socket goes and comes while the conversation goes on; the second page knows all of the first."""
    async with chatter.present() as conversation:
        for turn in range(2):
            await chatter.says(conversation, f"say turn {turn}", f"turn {turn}")
    async with chatter.present() as conversation:
        await chatter.says(conversation, "stream 6", "".join(f"word {number}." for number in range(6)))
    await _bye(chatter)


async def _two_at_once(chatter: Chatter) -> None:
    """Two pages show one conversation."""
    async with chatter.present() as one, chatter.present() as other:
        await chatter.says(one, "say one", "one")
        await chatter.sees(other)
        await chatter.says(other, "stream 4", "".join(f"word {number}." for number in range(4)))
        await chatter.sees(one)
    await _bye(chatter)


async def _makes_it_raise(chatter: Chatter) -> None:
    async with chatter.present() as conversation:
        await chatter.says(conversation, "say before", "before")
        await chatter.says(conversation, "raise", "AGENT_HANDLER_FAILED")


@dataclass(frozen=True)
class ChatKind:
    """`caused` are the stored errors of its session, which its client must be told of."""

    name: str
    act: Callable[[Chatter], Awaitable[None]]
    weight: int
    caused: tuple[str, ...] = ()
    reason: str = "agent_disconnected"
    project: str = "data"
    seconds: float = 5.0


CHAT_KINDS = (
    ChatKind("chats", _converses, 4),
    ChatKind("chats on two pages", _two_at_once, 1),
    ChatKind("raises in a chat", _makes_it_raise, 2, caused=("AGENT_HANDLER_FAILED",), reason="agent_error"),
)
