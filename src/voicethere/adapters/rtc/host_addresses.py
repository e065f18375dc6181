"""Which of this machine's addresses a peer offers as host candidates.

aioice offers every address except 127.0.0.1, and on a machine that has no other then waits for ever. Here
the choice is made by us: a few addresses, IPv4 first, loopback where there is nothing else, or exactly
those that were configured. The one place that reaches into aioice's gathering.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

import ifaddr
from aiortc import RTCIceTransport

LOOPBACK = "127.0.0.1"
_MAX_IPV4 = 4
_MAX_IPV6 = 2


def machine_addresses() -> list[str]:
    """Every address of every interface, as text."""
    return [
        ip.ip if isinstance(ip.ip, str) else ip.ip[0]
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    ]


def choose(addresses: Iterable[str]) -> list[str]:
    """A few of `addresses`, the best first: IPv4, then IPv6; loopback only where there is nothing else.

    Link-local addresses are left out: they need a zone that a candidate cannot carry.
    """
    ipv4: list[str] = []
    ipv6: list[str] = []
    for text in dict.fromkeys(addresses):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
            continue
        (ipv4 if address.version == 4 else ipv6).append(text)
    return (ipv4[:_MAX_IPV4] + ipv6[:_MAX_IPV6]) or [LOOPBACK]


def checked(addresses: Sequence[str]) -> list[str]:
    """Configured addresses as they are.

    Raises:
        ValueError: one of them is not an IP address, or there is none.
    """
    if not addresses:
        raise ValueError("host_addresses is empty: give at least one IP address, or None to choose by itself")
    for text in addresses:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f"not an IP address among host_addresses: {text!r}") from None
    return list(addresses)


def offer_only(transport: RTCIceTransport, addresses: Sequence[str]) -> None:
    """Make this transport gather its host candidates on `addresses` only."""
    connection = transport.iceGatherer._connection
    gather = connection.get_component_candidates
    ours = list(addresses)

    async def gather_on_ours(component: int, addresses: list[str], timeout: int = 5) -> Any:
        # aioice's own list is dropped: on a loopback-only machine it is empty.
        return await gather(component=component, addresses=ours, timeout=timeout)

    connection.get_component_candidates = gather_on_ours  # type: ignore[method-assign]
