"""Landlock: which files this process may open, for good.

It knows the kernel's structures and versions (ABI). It does not know which paths a child needs
(`readable`). Landlock binds the calling thread and what it starts, so it must come before any thread; it
rules neither `stat` nor Unix sockets by path nor UDP.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

import msgspec

from voicethere.adapters.sandbox import kernel

# include/uapi/linux/landlock.h
_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
# Every right that the kernel of an ABI knows is handled, so that what is not granted is denied:
# executing, making sockets, pipes, devices and symbolic links, and ioctl on devices are granted nowhere.
_HANDLED = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, 1 << 15))

_READ = _READ_FILE | _READ_DIR
_DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE
_SCRATCH = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_ONLY_OF_FOLDERS = _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER

ABI_RULES_TRUNCATION = 3
ABI_RULES_TCP = 4
ABI_SCOPES = 6


class Grant(msgspec.Struct, frozen=True):
    """A path opened with O_PATH, and what is granted beneath it."""

    descriptor: int
    rights: int


def abi() -> int:
    """The kernel's Landlock version, 0 where there is none."""
    try:
        return kernel.syscall("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


def _grant(path: str, rights: int) -> Grant:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
        rights &= ~_ONLY_OF_FOLDERS
    return Grant(descriptor, rights)


def grant_reading(path: str) -> Grant:
    """Read a file, or everything beneath a folder.

    Raises:
        OSError: there is no such path.
    """
    return _grant(path, _READ)


def grant_device(path: str) -> Grant:
    """Read and write a device such as /dev/null."""
    return _grant(path, _DEVICE)


def grant_scratch(path: str) -> Grant:
    """Read, write, make and remove files and folders beneath a folder; no links, sockets or programs."""
    return _grant(path, _SCRATCH)


def restrict(grants: Iterable[Grant], abi_version: int) -> None:
    """Deny the calling thread every file that no grant covers, TCP, and signals and abstract sockets
    beyond itself, as far as `abi_version` can.

    Raises:
        OSError: the kernel refused.
    """
    handled = 0
    for since, rights in _HANDLED:
        if abi_version >= since:
            handled |= rights
    tcp = 0b11 if abi_version >= ABI_RULES_TCP else 0
    scopes = 0b11 if abi_version >= ABI_SCOPES else 0
    # Older kernels take the longer structure as long as what they do not know is zero.
    attributes = struct.pack("=QQQ", handled, tcp, scopes)
    ruleset = kernel.syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for grant in grants:
            rule = struct.pack("=Qi", grant.rights & handled, grant.descriptor)
            kernel.syscall("landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0)
        kernel.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
