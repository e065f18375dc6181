"""System calls that the standard library has no function for, by ctypes.

It turns a failed call into the `OSError` that Python would have raised, and knows nothing of what the
calls are for.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

from voicethere.adapters.sandbox.syscalls import this_architecture

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.restype = ctypes.c_int

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

# include/uapi/linux/sched.h
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


def _raise_errno(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def _passed(argument: int | bytes | ctypes.Structure | None) -> Any:
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else argument


def syscall(name: str, *arguments: int | bytes | ctypes.Structure | None) -> int:
    """One of the calls in `syscalls.Architecture.own`; structures are passed by address.

    Raises:
        OSError: the kernel refused, or the architecture is not known.
    """
    architecture = this_architecture()
    if architecture is None:
        raise OSError(errno.ENOSYS, f"{name}: not known on {os.uname().machine}")
    result = int(_libc.syscall(ctypes.c_long(architecture.own[name]), *map(_passed, arguments)))
    if result < 0:
        _raise_errno(name)
    return result


def prctl(option: int, argument: int | bytes = 0, second: int = 0) -> int:
    """`prctl(2)`; unused arguments are zero, as some options insist.

    Raises:
        OSError: the kernel refused.
    """
    first = ctypes.c_char_p(argument) if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    result = int(
        _libc.prctl(ctypes.c_int(option), first, ctypes.c_ulong(second), ctypes.c_ulong(0), ctypes.c_ulong(0))
    )
    if result < 0:
        _raise_errno(f"prctl({option})")
    return result


def unshare(flags: int) -> None:
    """Move this process into new namespaces.

    Raises:
        OSError: not allowed here.
    """
    syscall("unshare", flags)


def clear_environment() -> None:
    """Empty the C library's environment, which `os.environ` only mirrors."""
    _libc.clearenv()
