"""What an operator may set of a runner, with the contract's defaults. Times in seconds, sizes in bytes."""

from __future__ import annotations

import msgspec

from voicethere.core.ports import SandboxLimits
from voicethere.errors import Bounds
from voicethere.wire.control_channel import MAX_JSON_MESSAGE_BYTES


class RunnerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`capacity` is how many sessions are hosted at once."""

    runner_id: str
    capacity: int = 64
    heartbeat_seconds: float = 1.0
    connect_seconds: float = 20.0
    hello_seconds: float = 0.5
    tell_seconds: float = 120.0
    rejoin_seconds: float = 30.0
    reoffer_seconds: float = 1.0
    flush_seconds: float = 2.0
    teardown_seconds: float = 5.0
    stop_agent_seconds: float = 0.5
    drain_seconds: float = 10.0
    token_refresh_share: float = 0.5
    max_json_message_bytes: int = MAX_JSON_MESSAGE_BYTES
    max_binary_message_bytes: int = 256 * 1024
    bounds: Bounds = Bounds()
    host_addresses: tuple[str, ...] | None = None
    child_limits: SandboxLimits = SandboxLimits()
