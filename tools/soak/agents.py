"""The agents that the soak deploys."""

from __future__ import annotations

_TALKATIVE = b"""
import asyncio
import os

from voicethere.agent import define_agent, disconnect_client, parse_chat_text, send_to_client, speak


async def on_session_start(ctx):
    send_to_client(ctx.session_id, {"type": "started", "pid": os.getpid()})


async def words(count):
    for number in range(count):
        yield f"word {number}."
        await asyncio.sleep(0.02)


async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
    order, _, rest = (text or "").partition(" ")
    if order == "say":
        speak(ctx.session_id, rest)
        return
    if order == "stream":
        await speak(ctx.session_id, words(int(rest)))
        return
    if order == "bye":
        speak(ctx.session_id, "Goodbye.")
        disconnect_client(ctx.session_id, "asked to")
        return
    if text == "raise":
        raise RuntimeError("asked to (Authorization: Bearer vth_4Zt9KqLw2XyB8nRcV5hJ)")
    if text == "speak":
        await speak(ctx.session_id, "Here I am.")
    send_to_client(ctx.session_id, {"type": "echo", "text": text})


define_agent(
    on_session_start=on_session_start, on_data_channel_message=on_data_channel_message, commands=["hello"]
)
"""


def bundle(number: int) -> bytes:
    """The agent as its build of this number: every build is another file."""
    return _TALKATIVE + f"\n# build {number}\n".encode()
