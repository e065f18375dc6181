"""What a chat client may send: conversation ids, prompts, and the names of a profile and a registry."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from voicethere.adapters.http.errors import HttpProblem, invalid
from voicethere.core.conversation import MAX_PROMPT_CHARS, conversation_id_problem, prompt_problem
from voicethere.wire.http import HttpErrorCode

MAX_NAME_CHARS = 200

Name = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST {base}/chat`. Unknown fields are ignored: clients that we did not write may send more."""

    prompt: str
    conv_id: str
    profile: Name | UnsetType | None = UNSET
    registry: Name | UnsetType | None = UNSET


class PromptAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """The 202 answer to a prompt: it is stored. `version` is the conversation's with the user's message."""

    conv_id: str
    version: int


class IssuedConversation(msgspec.Struct, frozen=True, kw_only=True):
    """The 201 answer of `POST {base}/conversations`. `expires_at` is a wire time: until then the id is good
    where the project requires issued ones."""

    conv_id: str
    expires_at: str


def conversation_id(text: str | None) -> str:
    """The id, which clients invent.

    Raises:
        HttpProblem: 422.
    """
    if text is None:
        raise invalid("`conv_id` is missing: say which conversation is meant.")
    if (problem := conversation_id_problem(text)) is not None:
        raise invalid(f"`conv_id` {problem}.")
    return text


def prompt_text(text: str) -> str:
    """The prompt as it is given to the agent.

    Raises:
        HttpProblem: 413, 422.
    """
    problem = prompt_problem(text)
    if problem is None:
        return text
    if len(text) > MAX_PROMPT_CHARS:
        raise HttpProblem(413, HttpErrorCode.PAYLOAD_TOO_LARGE, f"The message {problem}.")
    raise invalid(f"The message {problem}.")


def customer_context(prompt: Prompt) -> dict[str, Any] | None:
    """What the agent and the operator are told of a client's choice: kept with the session that it starts.

    Raises:
        HttpProblem: 422.
    """
    context = {}
    for name, value in (("profile", prompt.profile), ("registry", prompt.registry)):
        if isinstance(value, str) and value:
            if not value.isprintable():
                raise invalid(f"`{name}` must be printable.")
            context[name] = value
    return context or None
