"""A sandbox that confines nothing: children are plain subprocesses. For tests only.

It starts the same entry points over the same kind of stream as the real one, on machines and in tests where
confinement is not the point. It must never run code that is not the test's own.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence

from voicethere.core.ports import ChildExit, ChildProcess, ChildSpec, Mechanism, OutputLine
from voicethere.wire.ipc import OUT_OF_MEMORY_STATUS, FrameSplitter, FrameTooLong, add_length

_READ_BYTES = 256 * 1024
_MAX_LINE_CHARS = 8 * 1024


class SubprocessChild:
    """Implements `voicethere.core.ports.ChildProcess`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        scratch: str,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._scratch = scratch

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def send(self, frame: bytes) -> None:
        """Send one frame; a child that is gone swallows it."""
        try:
            self._writer.write(add_length(frame))
            await self._writer.drain()
        except OSError:
            pass

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames from the child, until it is gone."""
        splitter = FrameSplitter()
        while True:
            try:
                data = await self._reader.read(_READ_BYTES)
                if not data:
                    return
                for frame in splitter.feed(data):
                    yield frame
            except FrameTooLong:
                self.kill()
                return
            except OSError:
                return

    async def output(self) -> AsyncIterator[OutputLine]:
        """Lines of standard output and error, until both are closed."""
        lines: asyncio.Queue[OutputLine | None] = asyncio.Queue(maxsize=1000)
        streams = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        readers = [
            asyncio.create_task(_read_lines(name, stream, lines))
            for name, stream in streams.items()
            if stream is not None
        ]
        open_streams = len(readers)
        try:
            while open_streams:
                line = await lines.get()
                if line is None:
                    open_streams -= 1
                else:
                    yield line
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def wait(self) -> ChildExit:
        """Return when the process has ended."""
        status = await self._process.wait()
        if status < 0:
            return ChildExit(signal=-status)
        return ChildExit(exit_status=status, out_of_memory=status == OUT_OF_MEMORY_STATUS)

    def kill(self) -> None:
        """SIGKILL, now."""
        if self._process.returncode is None:
            try:
                self._process.send_signal(signal.SIGKILL)
            except ProcessLookupError:
                pass

    async def aclose(self) -> None:
        """Kill if need be, reap, close, remove the scratch folder."""
        self.kill()
        await self._process.wait()
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)


class SubprocessSandbox:
    """Implements `voicethere.core.ports.SandboxPort`, without confining anything."""

    def __init__(self) -> None:
        self._children: set[SubprocessChild] = set()

    async def start(self, spec: ChildSpec) -> ChildProcess:
        """Start `spec.entry_point` in a fresh interpreter, its limits ignored."""
        module, _, function = spec.entry_point.partition(":")
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        scratch = await asyncio.to_thread(tempfile.mkdtemp, prefix="voicethere-child-")
        code = f"import importlib; importlib.import_module({module!r}).{function}({fd})"
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-c",
                code,
                env=dict(spec.environment),
                cwd=scratch,
                pass_fds=(fd,),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_MAX_LINE_CHARS,
            )
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        child = SubprocessChild(process, reader, writer, scratch)
        self._children.add(child)
        return child

    def mechanisms(self) -> Sequence[Mechanism]:
        """One, and it is missing."""
        return [Mechanism(name="confinement", available=False, note="for tests only: nothing is confined")]

    async def aclose(self) -> None:
        """End every child."""
        await asyncio.gather(*(child.aclose() for child in self._children))
        self._children.clear()


async def _read_lines(
    name: str, stream: asyncio.StreamReader, lines: asyncio.Queue[OutputLine | None]
) -> None:
    while True:
        try:
            data = await stream.readuntil(b"\n")
        except asyncio.LimitOverrunError as overrun:
            data = await stream.readexactly(overrun.consumed)
        except asyncio.IncompleteReadError as end:
            if end.partial:
                await lines.put(OutputLine(name, end.partial.decode(errors="replace")))
            await lines.put(None)
            return
        await lines.put(OutputLine(name, data.decode(errors="replace").rstrip("\n")))
