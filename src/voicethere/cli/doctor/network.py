"""The network: the addresses that calls would use, UDP on them, and the port of the platform."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Mapping, Sequence

import msgspec

from voicethere.cli.doctor.findings import Finding, failed, in_thread, ok, warning
from voicethere.wire.http import HttpErrorBody

_UDP_SECONDS = 2.0
_HTTP_SECONDS = 3.0
_PACKET = b"voicethere doctor"


async def addresses() -> Finding:
    """What the runner would offer to clients as its own addresses."""
    from voicethere.adapters.rtc.host_addresses import LOOPBACK, choose, machine_addresses

    return judge_addresses(await in_thread(lambda: choose(machine_addresses())), loopback=LOOPBACK)


def judge_addresses(offered: Sequence[str], *, loopback: str) -> Finding:
    """`offered` are those that clients are told."""
    found = f"offered to clients: {', '.join(offered)}"
    if list(offered) == [loopback]:
        return warning(
            f"{found} (this machine has no other)",
            "Clients on this machine can call; for others, connect it to a network, or name the address that "
            "reaches it: `voicethere up --host-address ADDRESS`.",
        )
    return ok(found)


async def udp() -> Finding:
    """Send a packet to ourselves on each of these addresses."""
    from voicethere.adapters.rtc.host_addresses import choose, machine_addresses

    offered = await in_thread(lambda: choose(machine_addresses()))
    problems = await asyncio.gather(*(_udp_problem(address) for address in offered))
    return judge_udp(dict(zip(offered, problems, strict=True)))


def judge_udp(problems: Mapping[str, str | None]) -> Finding:
    """`problems` is address → what went wrong, None where nothing did."""
    good = [address for address, problem in problems.items() if problem is None]
    bad = [f"{address} ({problem})" for address, problem in problems.items() if problem is not None]
    todo = "Allow UDP on this machine (firewall, container network), or name addresses with --host-address."
    if not good:
        return failed(f"no packet came back on {'; '.join(bad)}", todo)
    if bad:
        return warning(f"packets came back on {', '.join(good)}; not on {'; '.join(bad)}", todo)
    return ok(f"packets came back on {', '.join(good)}")


async def _udp_problem(address: str) -> str | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as ours:
            ours.setblocking(False)
            ours.bind((address, 0))
            await loop.sock_sendto(ours, _PACKET, ours.getsockname())
            async with asyncio.timeout(_UDP_SECONDS):
                got, _ = await loop.sock_recvfrom(ours, len(_PACKET))
    except TimeoutError:
        return f"nothing within {_UDP_SECONDS:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return None if got == _PACKET else "another packet"


async def port(host: str, number: int) -> Finding:
    """Whether the platform could listen there, or does so already."""
    try:
        with socket.create_server((host, number), reuse_port=False):
            return ok(f"{host}:{number} is free")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            if await _is_ours(host, number):
                return ok(f"a VoiceThere platform serves on {host}:{number}")
            return failed(
                f"something else listens on {host}:{number}",
                "End it, or take another port: `voicethere up --port 0` takes a free one.",
            )
        todo = "Name another address with `voicethere up --host` and `--port`."
        if error.errno == errno.EACCES:
            todo = "Ports below 1024 need a privilege: take another with `voicethere up --port`."
        return failed(f"nobody may listen on {host}:{number}: {error.strerror or error}", todo)


async def _is_ours(host: str, number: int) -> bool:
    """Whether what answers there does so in our words: without a key, with a 401 of ours."""
    import httpx

    where = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104 - a comparison
    url = f"http://{f'[{where}]' if ':' in where else where}:{number}/api/v1/projects"
    try:
        async with httpx.AsyncClient(timeout=_HTTP_SECONDS, trust_env=False) as http:
            response = await http.get(url)
        msgspec.json.decode(response.content, type=HttpErrorBody)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError, UnicodeDecodeError):
        return False
    return response.status_code == 401
