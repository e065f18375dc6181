"""The agents that the soak deploys."""

from __future__ import annotations

_TALKATIVE = b"""
import os

from voicethere.agent import define_agent, parse_chat_text, send_to_client, speak


async def on_session_start(ctx):
    send_to_client(ctx.session_id, {"type": "started", "pid": os.getpid()})


async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
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
