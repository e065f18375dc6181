"""The bodies of the chat gateway's requests and answers (contract: sem-chat.md).

Frames and timelines are `wire.sem`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_NAME_CHARS = 200

Name = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]


class SubmitPrompt(msgspec.Struct, frozen=True, kw_only=True):
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
