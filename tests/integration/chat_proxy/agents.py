"""The agent that is chatted with over bad networks."""

TALKATIVE = b"""
import asyncio

from voicethere.agent import define_agent, disconnect_client, parse_chat_text, send_to_client, speak

going_on = asyncio.Event()


async def words(count, pause):
    for number in range(count):
        yield f"word {number}, "
        await asyncio.sleep(pause)


async def in_two_parts():
    yield "Before. "
    yield "Still before. "
    going_on.clear()
    await going_on.wait()
    yield "After."


async def after_thinking():
    going_on.clear()
    await going_on.wait()
    yield "At last."


async def breaking_off():
    yield "What has hands, "
    yield "but cannot clap? "
    raise ConnectionError("the model hung up")


async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
    if text is None:
        return
    say = lambda what: speak(ctx.session_id, what)
    order, _, rest = text.partition(" ")
    if order == "count":
        say(words(int(rest.split()[0]), 0.005))
    elif order == "pause":
        say(in_two_parts())
    elif order == "think":
        say(after_thinking())
    elif order == "on":
        going_on.set()
    elif order == "card":
        send_to_client(ctx.session_id, {"card": rest, "none": None, "numbers": [1, 2.5, 2**60]})
    elif order == "break":
        say(breaking_off())
    elif text == "please crash now":
        speak(ctx.session_id, in_two_parts())
        await asyncio.sleep(0.05)
        raise RuntimeError("as you like")
    elif order == "goodbye":
        await say(f"Goodbye {rest}.")
        disconnect_client(ctx.session_id, "done")
    else:
        say(f"You said: {text}")


define_agent(on_data_channel_message=on_data_channel_message)
"""
