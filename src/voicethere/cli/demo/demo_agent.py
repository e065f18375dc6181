"""The agent that the demo deploys: it repeats what it hears, and raises when it is asked to."""

import os
import time

from voicethere.agent import agent_log, define_agent, parse_chat_text, send_to_client, speak

COMMANDS = [
    "what time is it",
    "turn on the lights",
    "switch off the lamp",
    "play some music",
    "stop the music",
    "what is the weather today",
    "tell me a joke",
    "lock the front door",
    "call my mother",
    "open the door",
    "close the window",
    "read the news",
    "good morning",
    "good night",
    "thank you very much",
    "where is my phone",
    "order a pizza",
    "send a message",
    "how are you today",
    "tell me a story",
    "please crash now",
]


def look_up_account(session_id, text):
    """Stands for a call that fails, with a secret in its words as real ones have."""
    send_to_client(session_id, {"type": "fault", "at": time.time()})
    raise RuntimeError(
        f"the account service refused {text!r} (sent Authorization: Bearer vth_demo_4Zt9KqLw2XyB8nRcV5hJ)"
    )


def answer(session_id, text):
    if "crash" in text:
        look_up_account(session_id, text)
    speak(session_id, f"You said: {text}")


async def on_user_speech_final(ctx):
    answer(ctx.session_id, ctx.text)


async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
    if text is not None:
        answer(ctx.session_id, text)
    elif isinstance(ctx.message, dict) and ctx.message.get("type") == "which_process":
        send_to_client(ctx.session_id, {"type": "process", "pid": os.getpid()})


async def error_hook(ctx):
    agent_log("error", f"{ctx.hook} failed for session {ctx.session_id}")
    send_to_client(ctx.session_id, {"type": "error_hook_ran", "hook": ctx.hook})


define_agent(
    on_user_speech_final=on_user_speech_final,
    on_data_channel_message=on_data_channel_message,
    error_hook=error_hook,
    commands=COMMANDS,
)
