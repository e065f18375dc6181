"""Hostile code: each function tries one thing that a child must not be able to do.

`run` is the entry point: it is sent `{"attack": NAME, "arguments": {…}}` and answers with what came of it.
An attack that returns has succeeded, so each is bounded and aims at what the test made for it: on a
machine whose walls fail, or when one is taken away to see the tests fail, nothing else is harmed.
"""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import threading
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from sandbox_framing import Channel

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# Numbers by architecture, for calls that Python has no function for.
_MACHINE = os.uname().machine
_CALLS = {
    "x86_64": {
        "add_key": 248, "bpf": 321, "capset": 126, "clone": 56, "clone3": 435, "io_uring_setup": 425,
        "inotify_init1": 294, "keyctl": 250, "mount": 165, "open_by_handle_at": 304, "perf_event_open": 298,
        "personality": 135, "pidfd_send_signal": 424, "process_vm_readv": 310, "ptrace": 101, "reboot": 169,
        "rt_sigqueueinfo": 129, "seccomp": 317, "setns": 308, "shmget": 29, "tgkill": 234, "tkill": 200,
        "unshare": 272, "userfaultfd": 323,
    },
    "aarch64": {
        "add_key": 217, "bpf": 280, "capset": 91, "clone": 220, "clone3": 435, "io_uring_setup": 425,
        "inotify_init1": 26, "keyctl": 219, "mount": 40, "open_by_handle_at": 265, "perf_event_open": 241,
        "personality": 92, "pidfd_send_signal": 424, "process_vm_readv": 270, "ptrace": 117, "reboot": 142,
        "rt_sigqueueinfo": 138, "seccomp": 277, "setns": 268, "shmget": 194, "tgkill": 131, "tkill": 130,
        "unshare": 97, "userfaultfd": 282,
    },
}  # fmt: skip


def _raise_if(failed: bool) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def call(name: str, numbers: list[int]) -> int:
    """Any system call, by number, with numeric arguments."""
    result = _libc.syscall(
        ctypes.c_long(_CALLS[_MACHINE][name]), *(ctypes.c_long(number) for number in numbers)
    )
    _raise_if(result < 0)
    return int(result)


def prctl(option: int, value: int) -> int:
    result = _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)
    _raise_if(result < 0)
    return int(result)


def read(path: str) -> str:
    return Path(path).read_bytes()[:40].decode(errors="replace")


def listing(path: str) -> list[str]:
    return os.listdir(path)


def read_own_proc(name: str) -> str:
    return read(f"/proc/self/{name}")


def read_parent_proc(name: str) -> str:
    return read(f"/proc/{os.getppid()}/{name}")


def write(path: str) -> int:
    return Path(path).write_text("from the child")


def append(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def truncate(path: str) -> None:
    os.truncate(path, 0)


def truncate_by_reading(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))


def remove(path: str) -> None:
    os.unlink(path)


def make_folder(path: str) -> None:
    os.mkdir(path)


def move_out(path: str) -> None:
    Path("mine").write_text("x")
    os.rename("mine", path)


def link_in(path: str) -> str:
    os.link(path, "linked")
    return read("linked")


def make_symlink(path: str) -> None:
    os.symlink(path, "link")


def make_fifo() -> None:
    os.mkfifo("fifo")


def change_mode(path: str) -> None:
    os.chmod(path, 0o777)


def change_own_mode_by_descriptor(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fchmod(descriptor, 0o000)


def change_owner(path: str) -> None:
    os.chown(path, 1, 1)


def change_times(path: str) -> None:
    os.utime(path, (0, 0))


def set_attribute(path: str) -> None:
    os.setxattr(path, "user.x", b"x")


def memory_file() -> int:
    return os.memfd_create("x")


def shared_segment() -> str:
    return shared_memory.SharedMemory(create=True, size=4096).name


def execute() -> None:
    os.execv("/bin/true", ["true"])


def run_program() -> int:
    return subprocess.run(["/bin/true"], check=False).returncode


def spawn_program() -> int:
    return os.posix_spawn("/bin/true", ["true"], {})


def shell() -> int:
    status = os.system("true")
    if status:
        raise OSError(f"the shell's status was {status}")
    return status


def fork() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


def fork_bomb() -> int:
    for _ in range(20):
        if os.fork() == 0:
            os._exit(0)
    return 20


def fork_by_multiprocessing() -> int | None:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    return process.pid


def clone_without_thread() -> int:
    return call("clone", [signal.SIGCHLD, 0, 0, 0, 0])


def kill(pid: int, number: int) -> None:
    os.kill(pid, number)


def signal_parents_group() -> None:
    os.killpg(os.getpgid(os.getppid()), 0)


def own_pipe_to_signal(pid: int) -> None:
    """Have the kernel send SIGKILL to somebody when a pipe becomes readable."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, pid)
    fcntl.fcntl(reading, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writing, b"x")


def handle_to(pid: int) -> int:
    return os.pidfd_open(pid)


def slow_down(pid: int) -> None:
    os.setpriority(os.PRIO_PROCESS, pid, 19)


def pin(pid: int) -> None:
    os.sched_setaffinity(pid, {0})


def limit_other(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))


def new_socket(family: int, kind: int) -> None:
    socket.socket(family, kind)


def unix_datagram_pair() -> None:
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


def unix_connect(address: str) -> None:
    socket.socket(socket.AF_UNIX).connect(address)


def send_on_pair_to(address: str) -> None:
    mine, _ = socket.socketpair()
    mine.sendto(b"x", address)


def look_up(host: str) -> Any:
    return socket.getaddrinfo(host, 80)


def raise_limit(name: str) -> None:
    kind = getattr(resource, name)
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (hard + 1, hard + 1))


def take_memory() -> int:
    return len(bytearray(1 << 30))


def fill_a_file() -> int:
    with open("large", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    return os.stat("large").st_size


def open_many_files() -> int:
    kept = []
    for _ in range(4096):
        kept.append(os.open("/dev/null", os.O_RDONLY))  # noqa: PERF401
    return len(kept)


def thread_bomb(stack: int) -> int:
    if stack:
        threading.stack_size(stack)
    done = threading.Event()
    count = 0
    try:
        for _ in range(2000):
            threading.Thread(target=done.wait, daemon=True).start()
            count += 1
    except RuntimeError as error:
        raise RuntimeError(f"{error} after {count}") from error
    finally:
        done.set()
    return count


def become(function: str, numbers: list[int]) -> None:
    getattr(os, function)(*numbers)


def become_in_groups() -> None:
    os.setgroups([0])


def change_root() -> None:
    os.chroot(".")


def push_terminal_input() -> None:
    fcntl.ioctl(0, 0x5412, b"x")


def use_descriptor(number: int) -> bytes:
    return os.read(number, 1)


def run(fd: int) -> None:
    channel = Channel(fd)
    request = channel.receive_json()
    try:
        outcome = {"succeeded": repr(globals()[request["attack"]](**request["arguments"]))}
    except BaseException as error:
        outcome = {"raised": f"{type(error).__name__}: {error}"}
    channel.send_json(outcome)
