"""The process of a crowd of clients, of whichever kind: its command line, its log, its start."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from voicethere.cli.logs import configure_logs


def crowd_process(role: str, description: str, run: Callable[[argparse.Namespace], Awaitable[None]]) -> None:
    """Run a crowd until it is done; `run` is given base, journal, deployment, size and seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--deployment", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    configure_logs(level="INFO", file=arguments.log, role=role)

    async def until_done() -> None:
        await run(arguments)

    asyncio.run(until_done())
