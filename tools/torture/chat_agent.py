"""The agent that is chatted with in the torture run: answers prompts by their numbers, or breaks as asked."""

import asyncio
import os
import signal

from voicethere.agent import define_agent, disconnect_client, parse_chat_text, send_to_client, speak


async def words(number, count, breaks):
    yield f"answer to {number}:"
    for turn in range(count):
        await asyncio.sleep(0.05)
        yield f" word {turn}"
    if breaks:
        raise ConnectionError("the stream is broken on purpose")
    yield " end"


async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
    if text is None:
        return
    number, _, order = text.partition(" ")
    if order == "raise":
        raise RuntimeError("on_data_channel_message is broken on purpose")
    if order == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if order in ("stream", "break"):
        await speak(ctx.session_id, words(number, int(number) % 20, order == "break"))
        return
    if order == "card":
        send_to_client(ctx.session_id, {"card": number})
    speak(ctx.session_id, f"answer to {number}: end")
    if order == "bye":
        disconnect_client(ctx.session_id, "asked to")


define_agent(on_data_channel_message=on_data_channel_message)
