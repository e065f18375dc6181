"""The runner's side of the zygote: starting it, asking it for forks, hearing of exits.

It knows processes and their ends; what a child is for, its channel and its output are others' affairs.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from voicethere.adapters.sandbox import protocol
from voicethere.adapters.sandbox.confinement import WallState
from voicethere.core.ports import SandboxUnavailable

_ZYGOTE_MODULE = "voicethere.adapters.sandbox.zygote"
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0

_from_zygote = msgspec.msgpack.Decoder(protocol.FromZygote)


class ForkedProcess:
    """One child of the zygote. `exited` resolves to `(exit_status, signal)`, one of them None."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.exited: asyncio.Future[tuple[int | None, int | None]] = (
            asyncio.get_running_loop().create_future()
        )
        self._pidfd: int | None = pidfd

    def kill(self) -> None:
        """SIGKILL to exactly this process; harmless when it has ended."""
        if self._pidfd is not None:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # ended, and the zygote is about to say so

    def end(self, exit_status: int | None, number: int | None) -> None:
        """It has ended."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if not self.exited.done():
            self.exited.set_result((exit_status, number))

    def orphaned(self) -> None:
        """The zygote is gone, and with it whoever could tell the status: see to it that it ends."""
        if self._pidfd is None:
            return
        self.kill()
        loop = asyncio.get_running_loop()
        pidfd = self._pidfd

        def gone() -> None:
            loop.remove_reader(pidfd)
            self.end(None, signal.SIGKILL)

        loop.add_reader(pidfd, gone)


class ZygoteProcess:
    """A running zygote. Make it with `spawn`."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._control = control
        self._tokens = itertools.count(1)
        self._forks: dict[int, asyncio.Future[ForkedProcess]] = {}
        self._children: dict[int, ForkedProcess] = {}
        self._ready: asyncio.Future[protocol.Ready] = self._loop.create_future()
        self._sending = asyncio.Lock()
        self._gone = asyncio.Event()
        self._reaping: asyncio.Task[None] | None = None
        control.setblocking(False)
        self._loop.add_reader(control, self._read)

    @classmethod
    async def spawn(cls, *, preload: Sequence[str], import_from: Sequence[Path]) -> ZygoteProcess:
        """Start a zygote and wait until it has imported everything.

        It dies with the thread that calls this, which is therefore the event loop's.

        Raises:
            SandboxUnavailable: it cannot work; the words say why.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                process = _start(theirs, preload, import_from)
        except OSError as error:
            ours.close()
            raise SandboxUnavailable(f"the zygote could not be started: {error}") from error
        zygote = cls(process, ours)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await zygote._ready
        except TimeoutError as error:
            await zygote.aclose()
            raise SandboxUnavailable(
                f"the zygote had not imported {', '.join(preload)} after {_START_SECONDS:.0f} s"
            ) from error
        except BaseException:
            await zygote.aclose()
            raise
        return zygote

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._gone.is_set()

    @property
    def ready(self) -> protocol.Ready:
        """What it found and imported."""
        return self._ready.result()

    async def fork(self, channel: socket.socket, output: int, errors: int) -> ForkedProcess:
        """A new child that holds these three ends and waits for its order on the channel.

        Raises:
            SandboxUnavailable: the zygote cannot fork, or has died.
        """
        token = next(self._tokens)
        answer: asyncio.Future[ForkedProcess] = self._loop.create_future()
        self._forks[token] = answer
        try:
            await self._send(protocol.Fork(token), [channel.fileno(), output, errors])
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                answer.result().kill()
            raise
        except OSError as error:
            self._read()  # it has died, and whoever comes next must not meet it again
            raise SandboxUnavailable(f"the zygote does not answer: {error}") from error
        finally:
            # A child that arrives for nobody is killed, see `_take`.
            self._forks.pop(token, None)

    async def aclose(self) -> None:
        """End the zygote and with it every child; returns when the process is reaped."""
        self._close_control()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._ended()
        except TimeoutError:
            self._process.kill()
            await self._ended()
        self._process.wait()
        await asyncio.gather(*(child.exited for child in self._children.values()))

    async def _ended(self) -> None:
        if self._process.poll() is not None:
            return
        pidfd = os.pidfd_open(self._process.pid)
        ended = asyncio.Event()
        self._loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    async def _send(self, message: protocol.Fork, descriptors: Sequence[int]) -> None:
        packet = msgspec.msgpack.encode(message)
        async with self._sending:
            while self.alive:
                try:
                    socket.send_fds(self._control, [packet], descriptors)
                except BlockingIOError:
                    await self._writable()
                else:
                    return
        raise SandboxUnavailable("the zygote has died")

    async def _writable(self) -> None:
        room = asyncio.Event()
        self._loop.add_writer(self._control, room.set)
        try:
            await room.wait()
        finally:
            self._loop.remove_writer(self._control)

    def _read(self) -> None:
        while self.alive:
            try:
                packet, descriptors, _, _ = socket.recv_fds(
                    self._control, protocol.MAX_PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self._close_control()
                self._reaping = self._loop.create_task(self.aclose())
                return
            self._take(_from_zygote.decode(packet), descriptors)

    def _take(self, message: protocol.FromZygote, descriptors: Sequence[int]) -> None:
        match message:
            case protocol.Forked(token=token, pid=pid):
                child = self._children[token] = ForkedProcess(pid, descriptors[0])
                answer = self._forks.pop(token, None)
                if answer is None or answer.done():
                    child.kill()
                else:
                    answer.set_result(child)
            case protocol.ForkFailed(token=token, problem=problem):
                if (answer := self._forks.pop(token, None)) is not None and not answer.done():
                    answer.set_exception(SandboxUnavailable(f"the zygote could not fork: {problem}"))
            case protocol.Exited(token=token, exit_status=exit_status, signal=number):
                self._children.pop(token).end(exit_status, number)
            case protocol.Ready():
                if not self._ready.done():
                    self._ready.set_result(message)
            case protocol.Failed(problem=problem):
                if not self._ready.done():
                    self._ready.set_exception(SandboxUnavailable(problem))

    def _close_control(self) -> None:
        """The zygote ends when its control is closed; if it has died already, its children have too."""
        if self._gone.is_set():
            return
        self._gone.set()
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        died = SandboxUnavailable("the zygote has died")
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._forks.values()]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(died)
                answer.exception()  # told already, if nobody waits
        for child in self._children.values():
            child.orphaned()


def _command() -> list[str]:
    return [sys.executable, "-I", "-X", "utf8", "-m", _ZYGOTE_MODULE]


def _environment() -> dict[str, str]:
    """Nothing of the runner's environment, which is full of secrets; but libraries must be found."""
    library_path = os.environ.get("LD_LIBRARY_PATH")
    return {} if library_path is None else {"LD_LIBRARY_PATH": library_path}


def _start(
    control: socket.socket, preload: Sequence[str], import_from: Sequence[Path]
) -> subprocess.Popen[bytes]:
    descriptor = control.fileno()
    arguments = [str(descriptor), str(os.getpid()), *(f"+{folder}" for folder in import_from), *preload]
    return subprocess.Popen(
        [*_command(), *arguments],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[descriptor],
        start_new_session=True,
    )


def probe_in_a_process() -> list[WallState]:
    """Which walls stand here, without a zygote. Blocks for about 0.1 s.

    Raises:
        SandboxUnavailable: it could not be found out.
    """
    try:
        answer = subprocess.run(
            [*_command(), "--probe"],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxUnavailable(f"the probe of the sandbox failed: {error}") from error
    return msgspec.json.decode(answer.stdout, type=list[WallState])
