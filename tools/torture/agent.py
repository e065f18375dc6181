"""The agent of the torture run: answers, and breaks in the way that its client asks for."""

import os
import signal

from voicethere.agent import define_agent, parse_chat_text, send_to_client


def on_data_channel_message(ctx):
    word = parse_chat_text(ctx.message)
    if word is None:
        return
    if word == "raise":
        raise RuntimeError("on_data_channel_message is broken on purpose")
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    send_to_client(ctx.session_id, {"type": "echo", "text": word})


define_agent(on_data_channel_message=on_data_channel_message)
