"""What is acceptable of what a chat client sends, beyond its types."""

from __future__ import annotations

from typing import Any

from voicethere.adapters.http.errors import HttpProblem, invalid
from voicethere.core.conversation import MAX_PROMPT_CHARS, conversation_id_problem, prompt_problem
from voicethere.wire.chat_api import SubmitPrompt
from voicethere.wire.http import HttpErrorCode


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


def customer_context(prompt: SubmitPrompt) -> dict[str, Any] | None:
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
