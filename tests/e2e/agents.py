"""Agents that the end-to-end tests deploy."""

ECHO = b"""
import asyncio, os
from voicethere.agent import define_agent, parse_chat_text, send_to_client, send_binary_to_client, speak

async def on_session_start(ctx):
    send_to_client(ctx.session_id, {"type": "started", "pid": os.getpid(), "context": ctx.customer_context,
                                    "env": os.environ.get("AGENT_CUSTOMER_CONTEXT")})

async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
    if text == "raise":
        raise RuntimeError("no: Authorization: Bearer sk-live-4f9aB7cD8eF1gH2iJ3kL4mN5")
    if text == "goodbye":
        from voicethere.agent import disconnect_client
        disconnect_client(ctx.session_id, "done")
        return
    if text is not None:
        send_to_client(ctx.session_id, {"type": "echo", "text": text})
    else:
        kind = type(ctx.message).__name__
        send_to_client(ctx.session_id, {"type": "got", "raw": ctx.raw[:200], "kind": kind})

async def on_data_channel_binary(ctx):
    send_binary_to_client(ctx.session_id, ctx.data, ctx.channel)

define_agent(
    on_session_start=on_session_start,
    on_data_channel_message=on_data_channel_message,
    on_data_channel_binary=on_data_channel_binary,
    commands=["hello"],
)
"""
