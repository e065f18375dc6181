"""A client in a process of its own, to be killed: connects, says so, and waits.

Run as `python -m voicethere.cli.faults.lonely_client` with the credentials as JSON on standard input.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from voicethere.client import Credentials, connect_session


async def main() -> None:
    """Connect, print `connected`, and stay."""
    credentials = msgspec.json.decode(sys.stdin.buffer.readline(), type=Credentials)
    async with connect_session(credentials) as session:
        sys.stdout.write("connected\n")
        sys.stdout.flush()
        await session.closed


if __name__ == "__main__":
    asyncio.run(main())
