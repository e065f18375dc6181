"""Messages of the signaling WebSocket (contract: signaling.md).

`camel` renaming gives `peerId`, `targetPeerId`, `sdpMid`, `sdpMLineIndex`.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.tagged import TaggedDecoder

RUNNER_PEER_ID = "voice-agent-server"
CLIENT_PEER_PREFIX = "client-"


class Join(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Peer → gateway, the first message."""

    type: Literal["join"] = "join"
    room: str
    peer_id: str


class PeerJoined(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Gateway → the others; a joiner is also told of those already there."""

    type: Literal["peer-joined"] = "peer-joined"
    peer_id: str


class PeerLeft(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Gateway → the others."""

    type: Literal["peer-left"] = "peer-left"
    peer_id: str


class SessionDescription(msgspec.Struct, frozen=True, kw_only=True):
    """WebRTC's RTCSessionDescription."""

    type: Literal["offer", "answer"]
    sdp: str


class Description(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`offer` or `answer`, forwarded to `targetPeerId`; `peerId` is the sender."""

    type: Literal["offer", "answer"]
    room: str
    peer_id: str
    target_peer_id: str
    sdp: SessionDescription


class Candidate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """WebRTC's RTCIceCandidateInit; an empty `candidate` means that no more will come."""

    candidate: str
    sdp_mid: str | UnsetType | None = UNSET
    sdp_m_line_index: int | UnsetType | None = UNSET


class IceCandidate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One trickled candidate, forwarded to `targetPeerId`."""

    type: Literal["ice-candidate"] = "ice-candidate"
    room: str
    peer_id: str
    target_peer_id: str
    candidate: Candidate | None


signaling_decoder = TaggedDecoder(
    {
        "join": Join,
        "peer-joined": PeerJoined,
        "peer-left": PeerLeft,
        "offer": Description,
        "answer": Description,
        "ice-candidate": IceCandidate,
        "session_error": SessionErrorEnvelope,
    }
)
"""Decodes what either side of the socket may say."""
