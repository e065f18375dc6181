"""Prompts for `--json-events`: given ones, or the lines of standard input."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Sequence

from voicethere.cli.failure import Failure

MAX_PROMPT_BYTES = 1024 * 1024
"""Of one line. What is longer is refused, not cut: half a prompt is another prompt."""


async def given_prompts(prompts: Sequence[str]) -> AsyncIterator[str]:
    """These."""
    for prompt in prompts:
        yield prompt


async def prompts_of_stdin() -> AsyncIterator[str]:
    """The lines that are not blank, until standard input ends.

    Raises:
        Failure: a line that is too long, or is not UTF-8.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    wanted = threading.Semaphore(0)

    def read() -> None:
        while wanted.acquire():
            line = sys.stdin.buffer.readline(MAX_PROMPT_BYTES + 2)
            try:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            except RuntimeError:  # the loop has ended, and with it the interest
                return

    # A thread of our own, which the end of the process need not wait for: nobody can interrupt a read, and an
    # event loop cannot watch files.
    threading.Thread(target=read, name="prompts", daemon=True).start()
    number = 0
    while True:
        wanted.release()
        line = await lines.get()
        if not line:
            return
        number += 1
        if len(line.rstrip(b"\r\n")) > MAX_PROMPT_BYTES:
            raise Failure(f"line {number} of standard input is longer than {MAX_PROMPT_BYTES:,} bytes.")
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            raise Failure(f"line {number} of standard input is not UTF-8: {error.reason}.") from error
        if text:
            yield text
