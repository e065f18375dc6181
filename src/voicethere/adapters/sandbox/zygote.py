"""The zygote: a small process that has everything imported, and forks itself for each child.

Started by the runner as `python -I -m voicethere.adapters.sandbox.zygote` with one end of a
SOCK_SEQPACKET pair. It has one thread and no event loop, forks on request, reaps, reports, and ends with
the runner; its children end with it. It runs no code of an agent.
"""

from __future__ import annotations

import array
import gc
import importlib
import io
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Never

import msgspec

from voicethere.adapters.sandbox import child, kernel, landlock, privileges, protocol, readable
from voicethere.adapters.sandbox.confinement import Wall, WallState, probe, survey

# Numerical libraries start one thread per processor when they are imported; a process with threads
# cannot be forked safely, and a child gets by with one.
_SINGLE_THREADED = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS",
)
_DESCRIPTORS_PER_FORK = 3
_CONTROL = 3


class CannotServe(Exception):
    """The zygote has nothing to offer; the words say why."""


def _enter_namespaces() -> WallState:
    """An empty network of its own, once for all children: it costs them nothing."""
    empty = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC
    try:
        user, group = os.geteuid(), os.getegid()
        try:
            kernel.unshare(empty)
        except PermissionError:  # not root, or root without the capability: by way of a user namespace
            kernel.unshare(empty | kernel.CLONE_NEWUSER)
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else the files below are root's
            for name, line in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as mapping:
                    mapping.write(line)
    except OSError as error:
        return WallState(wall=Wall.NAMESPACES, available=False, note=str(error))
    return WallState(wall=Wall.NAMESPACES, available=True)


def _preload(modules: Sequence[str]) -> None:
    os.environ.update(dict.fromkeys(_SINGLE_THREADED, "1"))
    gc.disable()
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise CannotServe(f"preloading {module} failed: {type(error).__name__}: {error}") from error
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise CannotServe(
            f"preloading {', '.join(modules)} left {threads - 1} thread(s) running, and a process with "
            "threads cannot be forked safely; leave out what starts threads on import"
        )
    if (asyncio := sys.modules.get("asyncio")) is not None:
        # A first loop makes what all later ones use: once here, not in every child's own memory.
        asyncio.run(asyncio.sleep(0))


def _settle() -> None:
    """Leave as little as possible for each child to do, and nothing for it to find."""
    os.environ.clear()
    kernel.clear_environment()
    gc.collect()
    gc.freeze()


class Zygote:
    """Serves one runner over `control`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._children: dict[int, tuple[int, int]] = {}  # pidfd → pid, token
        self._surroundings: child.Surroundings | None = None

    def _say(self, message: protocol.FromZygote, descriptors: Sequence[int] = ()) -> None:
        packed = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)] if descriptors else []
        self._control.sendmsg([msgspec.msgpack.encode(message)], ancillary)

    def prepare(self, runner: int, preload: Sequence[str]) -> None:
        """Find out which walls stand here, import, and report."""
        namespaces = _enter_namespaces()
        privileges.die_with(runner)  # after the namespaces: entering one clears it
        ground = survey()
        states = [*probe(ground), namespaces]
        _preload(preload)
        paths = readable.interpreter_paths()
        grants = [landlock.grant_reading(path) for path in paths]
        grants += [landlock.grant_device(path) for path in readable.DEVICES if os.path.exists(path)]
        walls = {state.wall for state in states if state.available}
        if ground.landlock_abi:
            walls.add(Wall.LANDLOCK)  # an old one that rules less is still put up
        self._surroundings = child.Surroundings(ground=ground, walls=frozenset(walls), grants=grants)
        _settle()
        self._say(protocol.Ready(states, paths))

    def refuse(self, problem: str) -> None:
        """Report that this zygote cannot work."""
        self._say(protocol.Failed(problem))

    def serve(self) -> None:
        """Until the runner closes its end."""
        self._poll.register(self._control, select.POLLIN)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._reap(descriptor)
                elif not self._take_request():
                    return

    def end(self) -> None:
        """Kill and reap every child."""
        for pidfd in list(self._children):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)

    def _take_request(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(
            self._control, protocol.MAX_PACKET_BYTES, _DESCRIPTORS_PER_FORK, socket.MSG_CMSG_CLOEXEC
        )
        if not packet:
            return False
        token = msgspec.msgpack.decode(packet, type=protocol.Fork).token
        try:
            if len(descriptors) != _DESCRIPTORS_PER_FORK:
                raise OSError("its descriptors did not arrive; is the limit of open files reached?")
            self._fork(token, descriptors)
        except OSError as error:
            self._say(protocol.ForkFailed(token, str(error)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, token: int, descriptors: Sequence[int]) -> None:
        assert self._surroundings is not None
        pid = os.fork()
        if pid == 0:
            child.become(self._surroundings, *descriptors)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[pidfd] = (pid, token)
        self._poll.register(pidfd, select.POLLIN)
        self._say(protocol.Forked(token, pid), [pidfd])

    def _reap(self, pidfd: int) -> None:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert ended is not None
        _, token = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        if ended.si_code == os.CLD_EXITED:
            self._say(protocol.Exited(token, exit_status=ended.si_status))
        else:
            self._say(protocol.Exited(token, signal=ended.si_status))


def main(arguments: Sequence[str]) -> Never:
    """`zygote CONTROL_FD RUNNER_PID [+FOLDER…] [MODULE…]`: folders to import from, modules to preload.

    `zygote --probe` only prints which walls stand here, as JSON.
    """
    if arguments == ["--probe"]:
        namespaces = _enter_namespaces()
        sys.stdout.buffer.write(msgspec.json.encode([*probe(survey()), namespaces]))
        sys.exit(0)
    control_fd, runner, *rest = arguments
    # A terminal's Ctrl-C is for the runner, which ends its children in order. They inherit this, and the
    # rest of what is set here, which each of them would otherwise have to do again.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    kernel.prctl(kernel.PR_SET_NAME, b"vt-zygote")
    os.chdir("/")
    # On a child's lowest descriptors nothing may lie that it still needs (`child` puts its own there).
    control = socket.socket(fileno=int(control_fd))
    if control.fileno() != _CONTROL:
        os.dup2(control.fileno(), _CONTROL, inheritable=False)
        control.close()
        control = socket.socket(fileno=_CONTROL)
    zygote = Zygote(control)
    sys.path += [word[1:] for word in rest if word.startswith("+")]
    try:
        zygote.prepare(int(runner), [word for word in rest if not word.startswith("+")])
        zygote.serve()
    except (CannotServe, OSError) as error:
        try:
            zygote.refuse(str(error))
        except OSError:
            pass  # the runner is gone: nobody is left to tell
    finally:
        zygote.end()
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
