"""The agent of the fault matrix: it breaks in the way that its customer context names.

What breaks at import is only broken in a session: the bundle loads fine where it is validated.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
import time

from voicethere.agent import (
    agent_log,
    define_agent,
    parse_chat_text,
    send_binary_to_client,
    send_to_client,
    speak,
)

FAULT = json.loads(os.environ.get("AGENT_CUSTOMER_CONTEXT", "{}")).get("fault", "")

if FAULT == "import_error":
    import a_module_that_nobody_has  # noqa: F401
if FAULT == "syntax_error":
    exec(compile("def broken(:\n    pass\n", "agent.py", "exec"))
if FAULT == "slow_start":
    time.sleep(120)


WRITING = []


def mark(session_id):
    send_to_client(session_id, {"type": "fault", "at": time.time()})


def fail(session_id, where):
    mark(session_id)
    raise RuntimeError(f"{where} is broken on purpose")


def on_agent_start(ctx):
    if FAULT == "raise_in_agent_start":
        raise RuntimeError("on_agent_start is broken on purpose")


def on_session_start(ctx):
    if FAULT == "raise_in_session_start":
        fail(ctx.session_id, "on_session_start")
    send_to_client(ctx.session_id, {"type": "started", "pid": os.getpid()})


def on_speech_event(ctx):
    if FAULT == "raise_in_speech_event":
        fail(ctx.session_id, "on_speech_event")


def on_user_speech_final(ctx):
    if FAULT == "raise_in_speech_final":
        fail(ctx.session_id, "on_user_speech_final")
    speak(ctx.session_id, f"You said: {ctx.text}")


async def on_data_channel_message(ctx):
    text = parse_chat_text(ctx.message)
    if text == "go":
        mark(ctx.session_id)
        await GO.get(FAULT, nothing)(ctx.session_id)
    elif text is not None:
        send_to_client(ctx.session_id, {"type": "echo", "text": text})


def on_data_channel_binary(ctx):
    if FAULT == "raise_in_binary":
        fail(ctx.session_id, "on_data_channel_binary")
    send_binary_to_client(ctx.session_id, ctx.data, ctx.channel)


def on_session_end(ctx):
    if FAULT == "raise_in_session_end":
        fail(ctx.session_id, "on_session_end")


async def on_idle_timeout(ctx):
    if FAULT == "raise_in_idle_timeout":
        fail(ctx.session_id, "on_idle_timeout")
    if FAULT == "idle_timeout_overrun":
        mark(ctx.session_id)
        await asyncio.sleep(3600)


def error_hook(ctx):
    if FAULT == "raise_in_error_hook":
        raise ValueError("error_hook is broken as well")
    agent_log("error", f"{ctx.hook} failed")


# ------------------------------------------------------------------ what "go" does


async def nothing(session_id):
    pass


async def raise_in_data_message(session_id):
    raise RuntimeError("on_data_channel_message is broken on purpose")


async def raise_in_background_task(session_id):
    async def background():
        raise RuntimeError("a background task is broken on purpose")

    asyncio.create_task(background())


async def hard_exit(session_id):
    os._exit(3)


async def soft_exit(session_id):
    sys.exit(4)


async def killed(session_id):
    os.kill(os.getpid(), signal.SIGKILL)


async def segmentation_fault(session_id):
    ctypes.string_at(0)


async def out_of_memory(session_id):
    hoard = []
    while True:
        hoard.append(bytearray(16 * 1024 * 1024))


async def loop_in_coroutine(session_id):
    while True:
        pass


async def loop_in_plain_code(session_id):
    def plain():
        while True:
            pass

    await asyncio.to_thread(plain)


async def fork_bomb(session_id):
    while True:
        os.fork()


async def flood_of_messages(session_id):
    for n in range(50_000):
        send_to_client(session_id, {"type": "flood", "n": n, "padding": "x" * 200})
        if n % 100 == 0:
            await asyncio.sleep(0)


async def gigabyte_logged(session_id):
    def write():
        block = (b"x" * 1023 + b"\n") * 1024
        for _ in range(1024):
            sys.stdout.buffer.write(block)

    WRITING.append(asyncio.create_task(asyncio.to_thread(write)))


async def speak_long(session_id):
    speak(session_id, "one two three four five six seven eight nine ten " * 3)


GO = {
    "raise_in_data_message": raise_in_data_message,
    "raise_in_error_hook": raise_in_data_message,
    "raise_in_background_task": raise_in_background_task,
    "hard_exit": hard_exit,
    "soft_exit": soft_exit,
    "killed": killed,
    "segmentation_fault": segmentation_fault,
    "out_of_memory": out_of_memory,
    "loop_in_coroutine": loop_in_coroutine,
    "loop_in_plain_code": loop_in_plain_code,
    "fork_bomb": fork_bomb,
    "flood_of_messages": flood_of_messages,
    "gigabyte_logged": gigabyte_logged,
    "speech_synthesis_dies": speak_long,
}

if FAULT != "no_define_agent":
    define_agent(
        on_agent_start=on_agent_start,
        on_session_start=on_session_start,
        on_speech_event=on_speech_event,
        on_user_speech_final=on_user_speech_final,
        on_data_channel_message=on_data_channel_message,
        on_data_channel_binary=on_data_channel_binary,
        on_session_end=on_session_end,
        on_idle_timeout=on_idle_timeout,
        error_hook=error_hook,
        commands=["good morning", "please crash now"],
    )
