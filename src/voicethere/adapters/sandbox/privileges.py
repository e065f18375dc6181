"""Giving up for good what a process could do beyond an ordinary one, and whose it is.

Each function is one step; `confinement` knows their order.
"""

from __future__ import annotations

import errno
import os
import signal
import struct

from voicethere.adapters.sandbox import kernel

_CAPABILITY_VERSION_3 = 0x20080522
_FIRST_REAL_UID = 0x70000000


def forbid_new_privileges() -> None:
    """No program or filter can raise this process's privileges any more."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def count_capabilities() -> int:
    """How many the kernel knows. Asked once, before /proc is out of reach."""
    with open("/proc/sys/kernel/cap_last_cap") as last:
        return int(last.read()) + 1


def drop_capabilities(capabilities: int) -> None:
    """Empty all five capability sets of a kernel that knows so many `capabilities`.

    Raises:
        OSError: the kernel refused to.
    """
    for capability in range(capabilities):
        try:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
        except PermissionError:
            break  # an ordinary user: nothing to gain, no-new-privileges holds
    try:
        kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    nothing = bytes(24)
    kernel.syscall("capset", header, nothing)


def forbid_inspection() -> None:
    """No core dump, and no other process of the same user may look into this one."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def die_with(parent: int) -> None:
    """Be killed when `parent` ends. Must come after every change of identity, which clears it.

    Raises:
        OSError: the parent has ended already.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise OSError(errno.ESRCH, "the parent process has ended")


def count_threads_alone() -> None:
    """Make RLIMIT_NPROC count this process's threads only, not everything that its user runs.

    The kernel counts per real user and user namespace, and exempts root. So root takes a real uid that
    nobody else has; its effective uid stays, and with it access to an interpreter below a 0700 home. (A
    side effect: `os.access`, which asks for the real uid, says no.) An ordinary user takes a user namespace.

    Raises:
        OSError: neither is allowed here.
    """
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresuid(_FIRST_REAL_UID + os.getpid(), 0, 0)
        except OSError:
            pass  # root of a user namespace only, as in a rootless container, and so an ordinary user
        else:
            return
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
    except OSError as error:
        raise OSError(
            error.errno,
            "threads of one process can only be counted in a user namespace, and none can be made here "
            f"({error}); memory alone bounds them",
        ) from error
