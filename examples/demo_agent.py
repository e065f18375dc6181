"""The agent of `voicethere demo`: answers what is said or written, and crashes when it is asked to.

The exception's words hold a token on purpose: nothing that leaves the runner may show it.
"""

from voicethere.agent import Agent, agent_log, parse_chat_text, speak

PHRASES = [
    "what time is it",
    "turn on the lights",
    "turn off the heating",
    "play some music",
    "stop the music",
    "how is the weather",
    "set an alarm",
    "open the window",
    "close the front door",
    "call my mother",
    "send a message",
    "read my email",
    "start the washing machine",
    "where is my phone",
    "tell me a joke",
    "add milk and bread",
    "good morning everybody",
    "find a restaurant",
    "cancel my appointment",
    "remember this number",
]
CRASH_PHRASE = "please crash now"
FAKE_TOKEN = "vth_demo_5f2c9a71d04e8b36"

agent = Agent(commands=[*PHRASES, CRASH_PHRASE, "good bye"])


def answer(session_id: str, text: str) -> None:
    if "crash" in text:
        raise RuntimeError(f"the calendar refused us (Authorization: Bearer {FAKE_TOKEN})")
    speak(session_id, f"You said: {text}")


@agent.on_session_start
async def greet(ctx):
    agent_log("info", "session started", {"customer": ctx.customer_context})


@agent.on_user_speech_final
async def heard(ctx):
    answer(ctx.session_id, ctx.text)


@agent.on_data_channel_message
async def read(ctx):
    text = parse_chat_text(ctx.message)
    if text is not None:
        answer(ctx.session_id, text)


@agent.error_hook
async def failed(ctx):
    agent_log("error", f"{ctx.hook} failed for {ctx.customer_context}: {ctx.error}")
