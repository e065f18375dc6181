"""What a conversation's gateway sends and keeps, as decisions without I/O (contract: sem-chat.md).

`compose` says what an output of the session means, `advance` what becomes of the conversation by it, `frames`
writes what its sockets are sent. The store runs `advance` in its transaction; a gateway does the rest.
"""

from voicethere.core.conversation.advance import Advanced, advance, placed
from voicethere.core.conversation.compose import (
    compose,
    compose_end,
    compose_failures,
    compose_prompt,
    ends_cleanly,
)
from voicethere.core.conversation.frames import number, number_prompt, resend, snapshot
from voicethere.core.conversation.limits import (
    MAX_CONVERSATION_ID_CHARS,
    MAX_ENTITIES,
    MAX_PENDING_PROMPTS,
    MAX_PROMPT_CHARS,
    MAX_PROMPT_SESSIONS,
    MAX_PROPS_BYTES,
    MAX_TIMELINE_BYTES,
    conversation_id_problem,
    prompt_problem,
)
from voicethere.core.conversation.values import (
    Applied,
    AppliedEntity,
    Author,
    Composed,
    ConversationChange,
    ConversationState,
    EndedStream,
    EntityChange,
    FinishedStream,
    FrameDraft,
    OpenStream,
    SessionEnd,
    Skipped,
    StoredEntity,
    StreamStep,
)

__all__ = [
    "MAX_CONVERSATION_ID_CHARS",
    "MAX_ENTITIES",
    "MAX_PENDING_PROMPTS",
    "MAX_PROMPT_CHARS",
    "MAX_PROMPT_SESSIONS",
    "MAX_PROPS_BYTES",
    "MAX_TIMELINE_BYTES",
    "Advanced",
    "Applied",
    "AppliedEntity",
    "Author",
    "Composed",
    "ConversationChange",
    "ConversationState",
    "EndedStream",
    "EntityChange",
    "FinishedStream",
    "FrameDraft",
    "OpenStream",
    "SessionEnd",
    "Skipped",
    "StoredEntity",
    "StreamStep",
    "advance",
    "compose",
    "compose_end",
    "compose_failures",
    "compose_prompt",
    "conversation_id_problem",
    "ends_cleanly",
    "number",
    "number_prompt",
    "placed",
    "prompt_problem",
    "resend",
    "snapshot",
]
