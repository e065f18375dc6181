"""What an operator may set of the session service, with the contract's defaults.

Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import msgspec

from voicethere.core.provisioning import ProvisioningRules
from voicethere.wire.session_api import IceServer


class SignalingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one signaling socket or room may use; past any of these a socket is closed with 1008.

    `messages_per_second` is what a socket may sustain, `burst_messages` what it may say at once.
    `outbox_messages` and `outbox_bytes` bound what waits for a socket that reads slowly.
    """

    messages_per_second: float = 200.0
    burst_messages: int = 400
    message_bytes: int = 1024 * 1024
    sockets_per_room: int = 32
    outbox_messages: int = 1024
    outbox_bytes: int = 4 * 1024 * 1024
    send_seconds: float = 10.0


class SessionServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`public_base_url` (`https://voice.example.com`) is how clients reach this service; where it is None,
    the address that the client itself used (its Host header) is given back. `trust_forwarded_headers` takes
    `X-Forwarded-Proto` and `X-Forwarded-Host` for that: only behind a proxy that sets them.

    `sync_start_seconds`: how long a start with `async: false` may take before it is answered with 202.
    `poll_hold_seconds`: how long a poll of a session that is being provisioned waits for its end.
    `silent_seconds`: how long a linked runner, which beats every second, may say nothing before it is lost.
    `relink_grace_seconds`: how long a lost runner has to come back before its sessions count as lost.
    `settle_seconds`: how much longer its last words may take from the queue into the database.
    `force_seconds`: how long a deploy in `force` mode waits for the sessions that it has told to end.
    `reload_seconds`: how often a room whose runner is away is compared with the database, and after how long
    one without sockets is forgotten.
    """

    public_base_url: str | None = None
    trust_forwarded_headers: bool = False
    ice_servers: list[IceServer] = []
    sync_start_seconds: float = 25.0
    poll_hold_seconds: float = 0.2
    silent_seconds: float = 5.0
    relink_grace_seconds: float = 3.0
    settle_seconds: float = 10.0
    cancel_seconds: float = 30.0
    force_seconds: float = 30.0
    reload_seconds: float = 2.0
    tick_seconds: float = 0.25
    rules: ProvisioningRules = ProvisioningRules()
    signaling: SignalingLimits = SignalingLimits()
