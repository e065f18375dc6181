"""The filter on system calls: a classic BPF program, assembled here.

A refused call fails with EPERM, which Python raises as `PermissionError`: the agent's log then says what
was tried. A call from a foreign instruction set ends the process, because no number means anything then.
The rules: what is named in `syscalls` is refused; a few calls are ruled by their arguments; what is newer
than the table does not exist (ENOSYS, so that libraries fall back); the rest is allowed, and files among
it are Landlock's to rule.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Mapping

import msgspec

from voicethere.adapters.sandbox import kernel
from voicethere.adapters.sandbox.syscalls import LAST_CLASSIFIED, Architecture

# include/uapi/linux/bpf_common.h: load a word, jumps on a constant, return, and.
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x25, 0x45, 0x06, 0x54

# include/uapi/linux/seccomp.h
_SET_MODE_FILTER = 1
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_REFUSE = _ERRNO | errno.EPERM
_NO_SUCH_CALL = _ERRNO | errno.ENOSYS

# struct sock_filter: code, jump if true, jump if false, constant.
_INSTRUCTION_BYTES, _CONSTANT_AT = 8, 4
_CONSTANT = struct.Struct("=I")

# struct seccomp_data: number, architecture, instruction pointer, six 64-bit arguments (little-endian).
_NUMBER, _ARCHITECTURE = 0, 4

_CLONE_THREAD = 0x00010000
_CLONE_ANY_NAMESPACE = 0x7E020000
_SOCKET_TYPE_MASK = 0xF

# prctl options that tell, or touch only the caller's own naming and timers; none loosens anything.
_PRCTL_ALLOWED = (
    2,  # PR_GET_PDEATHSIG
    3,  # PR_GET_DUMPABLE
    15,  # PR_SET_NAME
    16,  # PR_GET_NAME
    21,  # PR_GET_SECCOMP
    23,  # PR_CAPBSET_READ
    29,  # PR_SET_TIMERSLACK
    30,  # PR_GET_TIMERSLACK
    39,  # PR_GET_NO_NEW_PRIVS
    0x53564D41,  # PR_SET_VMA: allocators name their memory
)
# What Python and libc ask of descriptors. Anything else could reach a terminal or a file's flags.
_IOCTL_ALLOWED = (
    0x5401,  # TCGETS (isatty)
    0x5413,  # TIOCGWINSZ
    0x541B,  # FIONREAD
    0x5421,  # FIONBIO
    0x5450,  # FIONCLEX
    0x5451,  # FIOCLEX
)
# These make the kernel send signals to a process of the caller's choice, or use up what others share.
_FCNTL_REFUSED = (
    8,  # F_SETOWN
    10,  # F_SETSIG
    15,  # F_SETOWN_EX
    1024,  # F_SETLEASE
    1026,  # F_NOTIFY
    1031,  # F_SETPIPE_SZ
)


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k)


def _low(argument: int) -> bytes:
    return _op(_LOAD, 16 + 8 * argument)


def _high(argument: int) -> bytes:
    return _op(_LOAD, 20 + 8 * argument)


def _if_equal(value: int, outcome: int) -> bytes:
    """Return `outcome` if the loaded word is `value`, else go on."""
    return _op(_EQUAL, value, 0, 1) + _op(_RETURN, outcome)


def _one_of(argument: int, values: Iterable[int], *, then: int, otherwise: int) -> bytes:
    tests = b"".join(_if_equal(value, then) for value in values)
    return _low(argument) + tests + _op(_RETURN, otherwise)


def _argument_rules(pid: int) -> Mapping[str, bytes]:
    """What follows a match on the call's number; every rule ends in a return.

    Only low words of 32-bit arguments are compared: the kernel ignores the rest of them too.
    """
    own_process = _one_of(0, (pid,), then=_ALLOW, otherwise=_REFUSE)
    own_or_zero = _one_of(0, (0, pid), then=_ALLOW, otherwise=_REFUSE)
    threads_only = (
        _low(0)
        + _op(_ANY_BIT, _CLONE_ANY_NAMESPACE, 0, 1)
        + _op(_RETURN, _REFUSE)
        + _op(_ANY_BIT, _CLONE_THREAD, 0, 1)
        + _op(_RETURN, _ALLOW)
        + _op(_RETURN, _REFUSE)
    )
    # A datagram pair could still send to any Unix socket by its path; a connected stream cannot.
    unix_streams = (
        _low(0)
        + _op(_EQUAL, socket.AF_UNIX, 1, 0)
        + _op(_RETURN, _REFUSE)
        + _low(1)
        + _op(_AND, _SOCKET_TYPE_MASK)
        + _if_equal(socket.SOCK_STREAM, _ALLOW)
        + _if_equal(socket.SOCK_SEQPACKET, _ALLOW)
        + _op(_RETURN, _REFUSE)
    )
    no_address = (
        _low(4)
        + _op(_EQUAL, 0, 1, 0)
        + _op(_RETURN, _REFUSE)
        + _high(4)
        + _if_equal(0, _ALLOW)
        + _op(_RETURN, _REFUSE)
    )
    return {
        "kill": own_process,
        "tkill": own_process,
        "tgkill": own_process,
        "clone": threads_only,
        # Its flags are in memory, out of a filter's sight; libc falls back to clone.
        "clone3": _op(_RETURN, _NO_SUCH_CALL),
        "socketpair": unix_streams,
        "sendto": no_address,
        "prctl": _one_of(0, _PRCTL_ALLOWED, then=_ALLOW, otherwise=_REFUSE),
        "ioctl": _one_of(1, _IOCTL_ALLOWED, then=_ALLOW, otherwise=_REFUSE),
        "fcntl": _one_of(1, _FCNTL_REFUSED, then=_REFUSE, otherwise=_ALLOW),
        "prlimit64": own_or_zero,
        "sched_setaffinity": own_or_zero,
    }


def assemble(architecture: Architecture, pid: int) -> bytes:
    """The program for the process `pid`, as an array of `struct sock_filter`."""
    program = [
        _op(_LOAD, _ARCHITECTURE),
        _op(_EQUAL, architecture.audit_arch, 1, 0),
        _op(_RETURN, _KILL_PROCESS),
        _op(_LOAD, _NUMBER),
        # Also refuses x86-64's x32 calls, whose numbers carry bit 30.
        _op(_GREATER, LAST_CLASSIFIED, 0, 1),
        _op(_RETURN, _NO_SUCH_CALL),
    ]
    rules = _argument_rules(pid)
    for name, number in architecture.ruled_by_argument.items():
        rule = rules[name]
        program += [_op(_EQUAL, number, 0, len(rule) // _INSTRUCTION_BYTES), rule]
    program += [_if_equal(number, _REFUSE) for number in architecture.refused.values()]
    program.append(_op(_RETURN, _ALLOW))
    return b"".join(program)


class Template(msgspec.Struct, frozen=True):
    """A program but for the process that it is for: assembling takes longer than a child should."""

    program: bytes
    process_at: tuple[int, ...]

    def for_process(self, pid: int) -> bytes:
        """The program for the process `pid`."""
        filled = bytearray(self.program)
        for offset in self.process_at:
            _CONSTANT.pack_into(filled, offset, pid)
        return bytes(filled)


def template(architecture: Architecture) -> Template:
    """Assembled once, filled in for each child."""
    program, other = assemble(architecture, 0), assemble(architecture, 0xFFFFFFFF)
    constants = range(_CONSTANT_AT, len(program), _INSTRUCTION_BYTES)
    return Template(program, tuple(at for at in constants if program[at] != other[at]))


class _FilterProgram(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(program: bytes) -> None:
    """Put the calling thread under `program`; it and what it starts can never leave it.

    Raises:
        OSError: the kernel has no seccomp filters, or new privileges are not ruled out yet.
    """
    kernel.syscall(
        "seccomp", _SET_MODE_FILTER, 0, _FilterProgram(len(program) // _INSTRUCTION_BYTES, program)
    )
