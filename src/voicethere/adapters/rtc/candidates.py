"""Reading ICE candidates that a stranger sent.

A candidate names an address that we will send packets to, and aioice trusts it: so it is checked here.
What a connection does not need (mDNS names, TCP, the RTCP component) is skipped, not refused.
"""

from __future__ import annotations

import enum
import ipaddress
import re

import msgspec
from aiortc import RTCIceCandidate

MAX_CANDIDATE_CHARS = 1024

_LINE = re.compile(
    r"(?:a=)?(?:candidate:)?(?P<foundation>[^\s:]{1,64}) (?P<component>[0-9]{1,3})"
    r" (?P<protocol>[A-Za-z]{1,8}) (?P<priority>[0-9]{1,10}) (?P<host>[^\s]{1,255}) (?P<port>[0-9]{1,5})"
    r" typ (?P<type>[a-z]{1,8})(?: .*)?"
)


class MalformedCandidate(ValueError):
    """The text is no candidate; the words say what was wrong."""


class Skip(enum.StrEnum):
    """Why a well-formed candidate is not used."""

    MDNS_NAME = "mdns_name"
    NOT_UDP = "not_udp"
    OTHER_COMPONENT = "other_component"
    UNUSABLE_ADDRESS = "unusable_address"
    UNUSABLE_TYPE = "unusable_type"


class Screened(msgspec.Struct, frozen=True):
    """Exactly one of both is set."""

    candidate: RTCIceCandidate | None = None
    skip: Skip | None = None


def screen(line: str) -> Screened:
    """What `candidate:…` says, for the peer's one transport.

    The m-line that it names does not matter: all media are bundled.

    Raises:
        MalformedCandidate: not a candidate.
    """
    if len(line) > MAX_CANDIDATE_CHARS:
        raise MalformedCandidate(f"a candidate of {len(line)} characters; {MAX_CANDIDATE_CHARS} are allowed")
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise MalformedCandidate(
            "not of the form 'candidate:<foundation> 1 udp <priority> <host> <port> typ <type>'"
        )
    port, priority = int(match["port"]), int(match["priority"])
    if port > 65_535 or priority > 2**32 - 1:
        raise MalformedCandidate(f"port {port} or priority {priority} is out of range")
    host = match["host"]
    if host.lower().endswith(".local"):
        return Screened(skip=Skip.MDNS_NAME)
    if match["protocol"].lower() != "udp":
        return Screened(skip=Skip.NOT_UDP)
    if match["component"] != "1":
        return Screened(skip=Skip.OTHER_COMPONENT)
    if match["type"] not in ("host", "srflx", "relay"):
        return Screened(skip=Skip.UNUSABLE_TYPE)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise MalformedCandidate(f"{host!r} is not an IP address") from None
    if address.is_unspecified or address.is_multicast or port == 0 or host == "255.255.255.255":
        return Screened(skip=Skip.UNUSABLE_ADDRESS)
    return Screened(
        candidate=RTCIceCandidate(
            component=1,
            foundation=match["foundation"],
            ip=host,
            port=port,
            priority=priority,
            protocol="udp",
            type=match["type"],
        )
    )
