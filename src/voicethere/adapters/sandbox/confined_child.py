"""One confined child as the runner sees it: frames, output, its end (`core.ports.ChildProcess`)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from voicethere.adapters.sandbox import protocol
from voicethere.adapters.sandbox.child import OUT_OF_MEMORY_STATUS
from voicethere.adapters.sandbox.oom import OutOfMemoryKills
from voicethere.adapters.sandbox.output import ChildOutput
from voicethere.adapters.sandbox.zygote_process import ForkedProcess
from voicethere.core.ports import ChildExit, OutputLine, SandboxUnavailable
from voicethere.wire.ipc import MAX_FRAME_BYTES

_READ_AHEAD_BYTES = 256 * 1024
_EXIT_GRACE_SECONDS = 2.0


class ConfinedChild:
    """A running child. Made by `ZygoteSandbox.start`, which has waited until it is confined.

    `protocol_violation` says, once the child was killed for it, how it broke the framing.
    """

    def __init__(
        self,
        process: ForkedProcess,
        channel: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        output: ChildOutput,
        *,
        out_of_memory_kills: OutOfMemoryKills,
        release: Callable[[], Awaitable[None]],
    ) -> None:
        self._process = process
        self._reader, self._writer = channel
        self._output = output
        self._out_of_memory_kills = out_of_memory_kills
        self._release = release
        self._sending = asyncio.Lock()
        self._pending_length: int | None = None
        self._killed_here = False
        self._exit: asyncio.Future[ChildExit] = asyncio.get_running_loop().create_future()
        self._closing: asyncio.Task[None] | None = None
        self.protocol_violation: str | None = None
        process.exited.add_done_callback(self._ended)

    @property
    def pid(self) -> int:
        """Of this machine, not of any namespace."""
        return self._process.pid

    async def order(self, order: protocol.ChildOrder, timeout_seconds: float) -> None:
        """Tell a freshly forked child what to become, and wait until it is confined.

        Raises:
            SandboxUnavailable: it could not be confined; the words name the wall.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.send(msgspec.msgpack.encode(order))
                answer = msgspec.msgpack.decode(await self._next_frame(), type=protocol.ChildAnswer)
        except TimeoutError as error:
            raise SandboxUnavailable(f"a child was not confined after {timeout_seconds:.0f} s") from error
        except (EOFError, OSError) as error:
            exit_ = await self.wait()
            raise SandboxUnavailable(f"a child ended while it was being confined: {exit_}") from error
        if answer.problem is not None:
            raise SandboxUnavailable(f"a child could not be confined: {answer.problem}")

    async def send(self, frame: bytes) -> None:
        """Send one frame's payload; waits for room. A child that is gone swallows it silently.

        Raises:
            ValueError: the frame is longer than `MAX_FRAME_BYTES`.
        """
        if len(frame) > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {len(frame)} bytes; at most {MAX_FRAME_BYTES} may be sent")
        async with self._sending:
            if self._writer.is_closing():
                return
            self._writer.write(protocol.frame(frame))
            try:
                await self._writer.drain()
            except OSError:
                pass

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames from the child, until it is gone. One consumer at a time.

        A frame past `MAX_FRAME_BYTES` kills the child, and so does going on without a channel.
        """
        try:
            while True:
                yield await self._next_frame()
        except (EOFError, OSError):
            pass
        if self.protocol_violation is None:
            try:
                async with asyncio.timeout(_EXIT_GRACE_SECONDS):
                    await self.wait()
            except TimeoutError:
                self._violation("it closed its channel and went on running")
        await self.wait()

    async def _next_frame(self) -> bytes:
        """Raises EOFError (or OSError) where there is none any more."""
        if self._pending_length is None:
            head = await self._reader.readexactly(protocol.FRAME_LENGTH.size)
            (self._pending_length,) = protocol.FRAME_LENGTH.unpack(head)
        if self._pending_length > MAX_FRAME_BYTES:
            self._violation(
                f"it announced a frame of {self._pending_length} bytes; at most {MAX_FRAME_BYTES} are allowed"
            )
            raise EOFError
        payload = await self._reader.readexactly(self._pending_length)
        self._pending_length = None
        return payload

    def _violation(self, words: str) -> None:
        if self.protocol_violation is None and not self._exit.done():
            self.protocol_violation = words
        self.kill()

    def output(self) -> AsyncIterator[OutputLine]:
        """Lines of standard output and error, until both are closed. One consumer."""
        return self._output.lines()

    async def wait(self) -> ChildExit:
        """Return when the process has ended."""
        return await asyncio.shield(self._exit)

    def kill(self) -> None:
        """SIGKILL, now; harmless when it has ended."""
        if not self._exit.done():
            self._killed_here = True
            self._process.kill()

    def _ended(self, exited: asyncio.Future[tuple[int | None, int | None]]) -> None:
        exit_status, number = exited.result()
        out_of_memory = exit_status == OUT_OF_MEMORY_STATUS or (
            number == signal.SIGKILL and not self._killed_here and self._out_of_memory_kills.explains_a_kill()
        )
        self._exit.set_result(ChildExit(exit_status=exit_status, signal=number, out_of_memory=out_of_memory))

    async def aclose(self) -> None:
        """Kill if need be, reap, close every descriptor, remove the scratch folder.

        May be called again, and goes on to its end when its caller is cancelled.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.kill()
        await self.wait()
        self._writer.transport.abort()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass
        self._output.close()
        await self._release()


async def open_channel() -> tuple[tuple[asyncio.StreamReader, asyncio.StreamWriter], socket.socket]:
    """The runner's end of a new channel, and the child's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        return await asyncio.open_unix_connection(sock=ours, limit=_READ_AHEAD_BYTES), theirs
    except BaseException:
        ours.close()
        theirs.close()
        raise


def open_output() -> tuple[ChildOutput, tuple[int, int]]:
    """The runner's ends of two new pipes, being read, and the child's."""
    stdout, child_stdout = os.pipe()
    try:
        stderr, child_stderr = os.pipe()
    except OSError:
        os.close(stdout)
        os.close(child_stdout)
        raise
    return ChildOutput(stdout, stderr), (child_stdout, child_stderr)
