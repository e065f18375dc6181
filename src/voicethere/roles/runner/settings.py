"""What an operator may set of a runner, with the contract's defaults. Times in seconds, sizes in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from voicethere.core.ports import SandboxLimits
from voicethere.errors import Bounds
from voicethere.wire.control_channel import MAX_JSON_MESSAGE_BYTES

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class InvalidSetting(ValueError):
    """A setting that is none, or out of its range; the words name it and what would be right."""


class RunnerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`capacity` is how many sessions are hosted at once; with less than `min_free_memory_mb` MiB available
    on the machine no more are taken (0: never mind).

    `drain_seconds`: how long sessions may go on once the runner was asked to leave; `end_seconds`: how long
    ending the rest in order may take. `warm_children` are kept in all, `warm_children_per_agent` of one
    deployment, each for at most `warm_child_seconds`.
    """

    runner_id: str
    capacity: int = 64
    heartbeat_seconds: Seconds = 1.0
    connect_seconds: Seconds = 20.0
    hello_seconds: Seconds = 0.5
    tell_seconds: Seconds = 120.0
    arrival_seconds: Seconds = 180.0
    rejoin_seconds: Seconds = 30.0
    reoffer_seconds: Seconds = 0.5
    quiet_seconds: Seconds = 2.0
    answer_seconds: Seconds = 6.0
    flush_seconds: Seconds = 2.0
    teardown_seconds: Seconds = 5.0
    stop_agent_seconds: Seconds = 0.5
    shared_child_linger_seconds: Seconds = 5.0
    agent_start_seconds: Seconds = 10.0
    hook_seconds: Seconds = 60.0
    idle_grace_seconds: Seconds = 30.0
    drain_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    end_seconds: Seconds = 10.0
    min_free_memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    warm_children: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 16
    warm_children_per_agent: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    warm_child_seconds: Seconds = 1800.0
    token_refresh_share: float = 0.5
    max_json_message_bytes: int = MAX_JSON_MESSAGE_BYTES
    max_binary_message_bytes: int = 256 * 1024
    bounds: Bounds = Bounds()
    host_addresses: tuple[str, ...] | None = None
    child_limits: SandboxLimits = SandboxLimits()


def changed(settings: RunnerSettings, changes: Iterable[str]) -> RunnerSettings:
    """`settings` with `NAME=VALUE` applied, as an operator gives them.

    Raises:
        InvalidSetting: not of that form, an unknown name, or a value out of its range.
    """
    fields = msgspec.to_builtins(settings)
    simple = sorted(
        name for name, value in fields.items() if isinstance(value, int | float) and name != "capacity"
    )
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or name not in simple:
            raise InvalidSetting(
                f"{change!r} is no runner setting; NAME=VALUE with one of {', '.join(simple)}"
            )
        fields[name] = value
    try:
        return msgspec.convert(fields, RunnerSettings, strict=False)
    except msgspec.ValidationError as problem:
        raise InvalidSetting(f"a runner setting is out of range: {problem}") from None
