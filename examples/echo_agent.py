"""Repeats what it hears or reads. "please crash now" shows what a failure looks like."""

from voicethere.agent import Agent, agent_log, parse_chat_text, speak

agent = Agent(commands=["hello", "what time is it", "good bye", "please crash now"])


@agent.on_user_speech_final
async def heard(ctx, text=None):
    text = text or ctx.text
    if "crash" in text:
        raise RuntimeError("demo failure")
    speak(ctx.session_id, f"You said: {text}")


@agent.on_data_channel_message
async def read(ctx):
    if text := parse_chat_text(ctx.message):
        await heard(ctx, text)


@agent.error_hook
async def failed(ctx):
    agent_log("error", f"session {ctx.session_id}: {ctx.error}")
