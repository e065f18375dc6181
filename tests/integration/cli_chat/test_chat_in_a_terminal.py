"""`voicethere chat` in a real terminal device, against a server that speaks sem-chat over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from voicethere.testing.chat_server import ScriptedChatServer

_WAIT_SECONDS = 30.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*?(?:[34]8[;:]|\b(?:3[0-7]|4[0-7]|9[0-7]|10[0-7])(?=[;m]))[0-9;]*m")


class TerminalChat:
    """One run of the command on the other end of a pseudo-terminal."""

    def __init__(self, device: int, process: asyncio.subprocess.Process) -> None:
        self._device = device
        self._process = process
        self._more = asyncio.Event()
        self.output = ""
        asyncio.get_running_loop().add_reader(device, self._read)

    def press(self, keys: str) -> None:
        """What the keyboard sends."""
        os.write(self._device, keys.encode())

    async def shows(self, text: str) -> None:
        """Wait until the terminal was told to show this.

        Raises:
            TimeoutError: it was not in time; the words hold the end of the output.
        """
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while text not in self.output:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise TimeoutError(f"{text!r} was not shown, but {self.output[-2_000:]!r}") from None

    async def ended(self) -> int:
        """Its exit status."""
        async with asyncio.timeout(_WAIT_SECONDS):
            return await self._process.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._device, 65_536)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._device)
        self.output += data.decode(errors="replace")
        self._more.set()


@asynccontextmanager
async def _terminal(
    *arguments: str, columns: int = 80, rows: int = 24, **environment: str
) -> AsyncIterator[TerminalChat]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "voicethere.cli.main",
        "chat",
        *arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
    )
    os.close(theirs)
    try:
        yield TerminalChat(ours, process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)


async def test_a_conversation_from_the_first_key_to_the_last() -> None:
    async with (
        ScriptedChatServer() as server,
        _terminal("conv-1", "--base-url", server.base_url) as chat,
    ):
        await chat.shows("● connected")
        chat.press("hello\r")
        await chat.shows("You said: hello")
        assert [prompt["prompt"] for prompt in server.prompts] == ["hello"]
        chat.press("\x14")  # ^T
        await chat.shows("No error so far.")
        chat.press("q")
        chat.press("\x11")  # ^Q
        assert await chat.ended() == 0
        await chat.shows("voicethere chat conv-1")
        assert _COLOUR.search(chat.output)


async def test_without_colours_not_one_is_sent() -> None:
    async with (
        ScriptedChatServer() as server,
        _terminal(
            "conv-1", "--base-url", server.base_url, "--send", "hello", columns=40, rows=20, NO_COLOR="1"
        ) as chat,
    ):
        await chat.shows("You said: hello")
        server.refuse("/chat", 503, "Not now.")
        chat.press("again\r")
        await chat.shows("Not now.")
        chat.press("\x12")  # ^R: the one key that sends it again
        await chat.shows("You said: again")
        chat.press("\x11")
        assert await chat.ended() == 0
        coloured = [found.group() for found in _COLOUR.finditer(chat.output)]
        assert coloured == []
