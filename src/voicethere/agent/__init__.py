"""The agent SDK: what an agent's author writes against (contract: agent-sdk.md).

Importing this is cheap and starts nothing; `voicethere.agent.child` is what runs a bundle.

Example:
    >>> from voicethere.agent import define_agent, speak
    >>> def on_user_speech_final(ctx):
    ...     speak(ctx.session_id, f"You said: {ctx.text}")
    >>> agent = define_agent(on_user_speech_final=on_user_speech_final, commands=["hello"])
"""

from voicethere.agent.actions import (
    agent_log,
    broadcast_to_clients,
    disconnect_client,
    send_binary_to_client,
    send_to_client,
    speak,
)
from voicethere.agent.chat_text import parse_chat_text
from voicethere.agent.contexts import (
    AgentStartContext,
    DataChannelBinaryContext,
    DataChannelMessageContext,
    ErrorContext,
    IdleTimeoutContext,
    SessionContext,
    SpeechEvent,
    SpeechEventContext,
    UserSpeechFinalContext,
)
from voicethere.agent.definition import Agent, AgentDefinitionError, define_agent
from voicethere.agent.speech import Speech, SpeechOutcome

__all__ = [
    # defining an agent
    "define_agent",
    "Agent",
    "AgentDefinitionError",
    # what a hook may do
    "speak",
    "send_to_client",
    "send_binary_to_client",
    "broadcast_to_clients",
    "disconnect_client",
    "agent_log",
    "parse_chat_text",
    "Speech",
    "SpeechOutcome",
    # what a hook is given
    "AgentStartContext",
    "SessionContext",
    "SpeechEvent",
    "SpeechEventContext",
    "UserSpeechFinalContext",
    "DataChannelMessageContext",
    "DataChannelBinaryContext",
    "IdleTimeoutContext",
    "ErrorContext",
]
