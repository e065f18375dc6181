"""What an operator may set of the chat gateway. Times in seconds, sizes in bytes."""

from __future__ import annotations

import msgspec


class SocketLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many sockets there may be, and what waits for one of them.

    `queue_frames` and `queue_bytes` bound what waits for a socket that reads slowly: past either it gets
    the conversation's latest entities instead, once it has caught up.
    """

    of_process: int = 20_000
    of_project: int = 10_000
    of_conversation: int = 32
    queue_frames: int = 1_000
    queue_bytes: int = 4 * 1024 * 1024


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`resent_entities`: so many of a conversation's latest are sent again when a socket opens, of
    `resent_bytes` together at most.
    `backlog_outputs` and `backlog_bytes` bound what waits to be stored (more is said again by its runner),
    `batch_outputs` what one transaction stores. `gather_seconds`: how far such transactions are apart at
    least, so that many conversations share one; what comes after a pause waits for nothing.

    `recheck_seconds`: how often it is looked whether the keys and projects of open sockets are still good.
    `look_seconds`: how often a prompt that waits for its session looks where that stands; news come sooner.
    `again_seconds`: after what time a prompt that no runner has taken is said again. `recover_seconds`: how
    often it is looked for prompts and ended sessions of which nobody cares. `orphan_seconds`: how old a
    prompt must be to count as one of them. `gap_seconds`: how long frames wait for those before them.
    `sweep_seconds`: how often it is looked whether frames of other gateways were lost on their way here.
    `issued_seconds`: how long an issued conversation id is good where a project requires them.
    """

    resent_entities: int = 200
    resent_bytes: int = 4 * 1024 * 1024
    backlog_outputs: int = 4_096
    backlog_bytes: int = 32 * 1024 * 1024
    batch_outputs: int = 256
    gather_seconds: float = 0.02
    recheck_seconds: float = 5.0
    look_seconds: float = 1.0
    again_seconds: float = 1.0
    recover_seconds: float = 2.0
    orphan_seconds: float = 5.0
    gap_seconds: float = 1.0
    sweep_seconds: float = 5.0
    drain_seconds: float = 2.0
    issued_seconds: int = 30 * 86_400
    sockets: SocketLimits = SocketLimits()
