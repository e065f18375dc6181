"""The filter, run by a small interpreter of classic BPF: both architectures on any machine."""

from __future__ import annotations

import errno
import signal
import socket
import struct

import pytest

from voicethere.adapters.sandbox.seccomp import assemble, template
from voicethere.adapters.sandbox.syscalls import ARCHITECTURES, LAST_CLASSIFIED, Architecture

PID = 4321
ALLOWED = 0x7FFF0000
KILLED = 0x80000000
REFUSED = 0x00050000 | errno.EPERM
UNKNOWN = 0x00050000 | errno.ENOSYS

X86_64, AARCH64 = ARCHITECTURES["x86_64"], ARCHITECTURES["aarch64"]


def run(program: bytes, audit_arch: int, number: int, *arguments: int) -> int:
    """What the kernel would do; fails on an instruction or a jump that it would not take."""
    data = struct.pack("<IIQ6Q", number, audit_arch, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert len(instructions) <= 4096
    at = accumulator = 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x06:
                return k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x25:
                at += if_true if accumulator > k else if_false
            case 0x45:
                at += if_true if accumulator & k else if_false
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def decide(architecture: Architecture, name: str, *arguments: int) -> int:
    number = {**architecture.refused, **architecture.ruled_by_argument}[name]
    return run(assemble(architecture, PID), architecture.audit_arch, number, *arguments)


BOTH = pytest.mark.parametrize("architecture", [X86_64, AARCH64], ids=lambda a: str(a.name))


@BOTH
def test_all_that_is_refused_is_refused(architecture: Architecture) -> None:
    assert {decide(architecture, name) for name in architecture.refused} == {REFUSED}


@BOTH
def test_the_rest_is_allowed(architecture: Architecture) -> None:
    program = assemble(architecture, PID)
    named = {*architecture.refused.values(), *architecture.ruled_by_argument.values()}
    others = set(range(LAST_CLASSIFIED + 1)) - named
    assert {run(program, architecture.audit_arch, number) for number in others} == {ALLOWED}


@BOTH
def test_newer_calls_do_not_exist(architecture: Architecture) -> None:
    program = assemble(architecture, PID)
    for number in (LAST_CLASSIFIED + 1, 2000, 0xFFFFFFFF):
        assert run(program, architecture.audit_arch, number) == UNKNOWN


def test_x32_calls_do_not_exist() -> None:
    x32_bit = 0x40000000
    assert run(assemble(X86_64, PID), X86_64.audit_arch, x32_bit | X86_64.refused["execve"]) == UNKNOWN


@BOTH
def test_a_foreign_architecture_ends_the_process(architecture: Architecture) -> None:
    i386 = 0x40000003
    assert run(assemble(architecture, PID), i386, 1) == KILLED


@BOTH
@pytest.mark.parametrize(
    ("name", "arguments", "outcome"),
    [
        ("kill", (PID, signal.SIGTERM), ALLOWED),
        ("kill", (PID + 1, 0), REFUSED),
        ("kill", (0, 9), REFUSED),
        ("kill", (2**64 - 1, 9), REFUSED),
        ("kill", (2**64 - PID, 9), REFUSED),
        ("tgkill", (PID, PID, 6), ALLOWED),
        ("tgkill", (1, 1, 6), REFUSED),
        ("tkill", (1, 9), REFUSED),
        ("clone", (0x3D0F00,), ALLOWED),  # pthread_create
        ("clone", (signal.SIGCHLD,), REFUSED),  # fork
        ("clone", (0x4000 | 0x100 | signal.SIGCHLD,), REFUSED),  # vfork
        ("clone", (0x3D0F00 | 0x10000000,), REFUSED),  # a thread in a namespace of its own
        ("clone3", (1, 88), UNKNOWN),
        ("socketpair", (socket.AF_UNIX, socket.SOCK_STREAM), ALLOWED),
        ("socketpair", (socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC), ALLOWED),
        ("socketpair", (socket.AF_UNIX, socket.SOCK_DGRAM), REFUSED),
        ("socketpair", (socket.AF_INET, socket.SOCK_STREAM), REFUSED),
        ("sendto", (3, 1000, 5, 0, 0, 0), ALLOWED),
        ("sendto", (3, 1000, 5, 0, 0x7FFF_0000_0000, 16), REFUSED),
        ("sendto", (3, 1000, 5, 0, 0x1000, 16), REFUSED),
        ("prctl", (15, 1000), ALLOWED),
        ("prctl", (1, 0), REFUSED),
        ("prctl", (4, 1), REFUSED),
        ("prctl", (38, 0), REFUSED),
        ("ioctl", (0, 0x5401), ALLOWED),
        ("ioctl", (0, 0x5412), REFUSED),
        ("ioctl", (0, 0x1_0000_5412), REFUSED),
        ("fcntl", (0, 3), ALLOWED),
        ("fcntl", (0, 8, 1), REFUSED),
        ("fcntl", (0, 10, 9), REFUSED),
        ("prlimit64", (0, 7), ALLOWED),
        ("prlimit64", (PID, 7), ALLOWED),
        ("prlimit64", (1, 7), REFUSED),
        ("sched_setaffinity", (0,), ALLOWED),
        ("sched_setaffinity", (1,), REFUSED),
    ],
)
def test_arguments_decide(
    architecture: Architecture, name: str, arguments: tuple[int, ...], outcome: int
) -> None:
    assert decide(architecture, name, *arguments) == outcome


@BOTH
def test_every_ruled_call_has_a_rule_that_ends(architecture: Architecture) -> None:
    for name in architecture.ruled_by_argument:
        assert decide(architecture, name, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD, 0xDEAD) in {
            ALLOWED,
            REFUSED,
            UNKNOWN,
        }


@BOTH
@pytest.mark.parametrize("pid", [1, 255, 256, 4321, 2**22])
def test_a_filled_template_is_the_assembled_program(architecture: Architecture, pid: int) -> None:
    assert template(architecture).for_process(pid) == assemble(architecture, pid)
