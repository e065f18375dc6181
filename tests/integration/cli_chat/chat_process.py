"""`voicethere chat` as a process of its own, with pipes for its standard streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from types import TracebackType
from typing import Self

_WAIT_SECONDS = 60.0


class Chat:
    """One run of the command. Killed where it has not ended when the `async with` is left."""

    def __init__(self, *arguments: str, stdout_closed: bool = False) -> None:
        self._arguments = arguments
        self._stdout_closed = stdout_closed

    async def __aenter__(self) -> Self:
        stdout = asyncio.subprocess.PIPE
        if self._stdout_closed:
            reading, stdout = os.pipe()
            os.close(reading)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "voicethere.cli.main",
            "chat",
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )
        if self._stdout_closed:
            os.close(stdout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def say(self, text: str | bytes) -> tuple[str, str, int | None]:
        """Give it its whole standard input; its output, its errors and its exit status."""
        data = text.encode() if isinstance(text, str) else text
        async with asyncio.timeout(_WAIT_SECONDS):
            output, error = await self._process.communicate(data)
        return (output or b"").decode(), error.decode(), self._process.returncode
