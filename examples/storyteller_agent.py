"""Streams its answers, word by word, as a language model would: by voice and in chat, from the same hooks.

Who interrupts it by voice stops the writing, too. "tell me a riddle" shows a stream that breaks half-way.
"""

import asyncio

from voicethere.agent import Agent, agent_log, parse_chat_text, speak

ANSWERS = {
    "tell me a story": (
        "Once upon a time there was a telephone. It rang all day long, and nobody knew who was calling. "
        "One evening a child picked it up. Hello, said the telephone, I have waited for you. "
        "They talked until the moon was high, and from then on it only rang when there was something to say. "
        "That is the end of the story."
    ),
    "how are you": "I am well, thank you. I have read a good book. And you?",
    "tell me a riddle": "What has hands, but cannot clap? It is",
}
SECONDS_PER_WORD = 0.04

agent = Agent(commands=list(ANSWERS))


async def write(question):
    """Stands in for a model's stream: `async for chunk in model.stream(question): yield chunk.text`."""
    words = 0
    try:
        for word in ANSWERS.get(question, f"I know nothing of {question}. Ask me for a story.").split(" "):
            yield word if words == 0 else f" {word}"
            words += 1
            await asyncio.sleep(SECONDS_PER_WORD)
        if question == "tell me a riddle":
            raise ConnectionError("the model hung up in the middle of a sentence")
    finally:  # also where the stream is closed, because the user talks now, or has gone
        agent_log("info", "stopped writing", {"words": words})


@agent.on_session_start
async def greet(ctx):
    speak(ctx.session_id, "Hello. Ask me for a story!")


@agent.on_user_speech_final
async def heard(ctx):
    speak(ctx.session_id, write(ctx.text))


@agent.on_data_channel_message
async def read(ctx):
    if text := parse_chat_text(ctx.message):
        speak(ctx.session_id, write(text.strip(" .!?").lower()))
