"""One speech process as its runner sees it: started, asked, killed, reaped.

Knows processes and frames. It does not queue, retry or replace: that is `worker_pool`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys

import msgspec

from voicethere.adapters.speech.worker_protocol import (
    LENGTH,
    MAX_FRAME_BYTES,
    FailedReply,
    ReadyReply,
    Reply,
    Request,
    decode_reply,
    encode_frame,
)
from voicethere.core.ports import SpeechProviderError

# What a speech process may see of our environment: no secret of the runner is among it.
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONPYCACHEPREFIX")


class SpeechWorker:
    """A running process of `module`. Make one with `start`; end it with `aclose`, always.

    `name` is how errors call it ("the speech recognizer"). Not for concurrent requests.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        pidfd: int,
        errors_fd: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.name = name
        self._process = process
        self._pidfd = pidfd
        self._errors_fd = errors_fd
        self._reader = reader
        self._writer = writer
        self._closed = False
        self.ready = ReadyReply()

    @classmethod
    async def start(cls, name: str, module: str, *, timeout_seconds: float) -> SpeechWorker:
        """Start the process and wait until it says that it works.

        Raises:
            SpeechProviderError: it could not be started, did not become ready in time, or says why not.
        """
        ours, theirs = socket.socketpair()
        # Non-blocking at both ends: a process that floods its stderr loses the rest and never hangs on it.
        errors_fd, their_errors_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - a vfork and exec: a few milliseconds
                [sys.executable, "-P", "-m", module, str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=their_errors_fd,
                stderr=their_errors_fd,
                env={key: os.environ[key] for key in _PASSED_ON if key in os.environ},
                process_group=0,  # a Ctrl-C in the terminal is not for it
            )
        except OSError as error:
            ours.close()
            os.close(errors_fd)
            raise SpeechProviderError(f"{name}'s process could not be started: {error}") from error
        finally:
            theirs.close()
            os.close(their_errors_fd)
        pidfd = os.pidfd_open(process.pid)
        ours.setblocking(False)
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:  # cancelled: nobody else knows of the process yet
            process.kill()
            process.wait()
            ours.close()
            os.close(pidfd)
            os.close(errors_fd)
            raise
        worker = cls(name, process, pidfd, errors_fd, reader, writer)
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await worker._receive()
        except TimeoutError:
            await worker.aclose()
            raise SpeechProviderError(
                f"{name}'s process was not ready within {timeout_seconds:g} s"
            ) from None
        except BaseException:
            await worker.aclose()
            raise
        if not isinstance(reply, ReadyReply):
            await worker.aclose()
            problem = reply.message if isinstance(reply, FailedReply) else "unexpected first message"
            raise SpeechProviderError(f"{name} cannot start: {problem}")
        worker.ready = reply
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone (killed while nobody asked anything of it, say)."""
        return self._process.poll() is not None

    async def request(self, request: Request) -> Reply:
        """The process's reply, failures that it reports included.

        Raises:
            SpeechProviderError: the process ended, or sent what no reply is. It is of no more use then.
        """
        try:
            self._writer.write(encode_frame(request))
            await self._writer.drain()
        except (ConnectionError, RuntimeError):
            pass  # it is gone: reading below says how it ended
        return await self._receive()

    async def _receive(self) -> Reply:
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > MAX_FRAME_BYTES:
                raise SpeechProviderError(f"{self.name}'s process sent a frame of {length} bytes")
            return decode_reply(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise SpeechProviderError(await self._obituary()) from None
        except msgspec.DecodeError as error:
            raise SpeechProviderError(f"{self.name}'s process sent a malformed reply: {error}") from None

    async def _obituary(self) -> str:
        """How the process ended, with the last line that it wrote, for an operator."""
        try:
            async with asyncio.timeout(1):
                status = await self._wait()
        except TimeoutError:  # it closed its socket and lives on: of no use
            self._process.kill()
            status = await self._wait()
        how = f"exited with status {status}"
        if status < 0:
            try:
                how = f"was killed by {signal.Signals(-status).name}"
            except ValueError:
                how = f"was killed by signal {-status}"
        try:
            lines = os.read(self._errors_fd, 65536).decode("utf-8", "replace").strip().splitlines()
        except BlockingIOError:
            lines = []
        return f"{self.name}'s process {how}" + (f": {lines[-1][:300]}" if lines else "")

    async def _wait(self) -> int:
        """The exit status (negative: a signal) once the process has ended; it is reaped by then."""
        loop = asyncio.get_running_loop()
        if self._process.returncode is None:
            ended = asyncio.Event()
            loop.add_reader(self._pidfd, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._pidfd)
        return self._process.wait()  # at once: it has ended

    async def aclose(self) -> None:
        """Kill, reap and close; harmless when repeated. It has nothing to save, so nothing is waited for."""
        if self._closed:
            return
        self._closed = True
        self._process.kill()
        self._writer.transport.abort()
        try:
            await self._wait()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
        finally:
            self._process.wait()  # at once, unless we were cancelled above: then within milliseconds
            os.close(self._pidfd)
            os.close(self._errors_fd)
