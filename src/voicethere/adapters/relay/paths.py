"""Unix-domain sockets whose path may be longer than the kernel's 107 bytes.

A long directory is opened and named by its descriptor (`/proc/self/fd/N/relay.sock`): no change of the
working directory, which a whole process shares, and no symbolic link that could be left over. The last
part of the path itself must be short.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LONGEST_ADDRESS = 107
"""Bytes of a path that a Unix-domain socket address can hold."""

_LONGEST_NAME = 64


class RelayPathInvalid(ValueError):
    """The path cannot be that of a relay's socket; the words say why."""


class RelayBusy(OSError):
    """Somebody listens on this path already: a second session service on the same data directory."""


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address that reaches `path` and fits; usable while the context lasts.

    Raises:
        RelayPathInvalid: the file's name alone is too long.
        FileNotFoundError: the directory is not there.
    """
    absolute = path.absolute()
    if len(os.fsencode(absolute)) <= LONGEST_ADDRESS:
        yield str(absolute)
        return
    if len(os.fsencode(absolute.name)) > _LONGEST_NAME:
        raise RelayPathInvalid(
            f"the name of the relay's socket has more than {_LONGEST_NAME} bytes: {absolute.name}"
        )
    directory = os.open(absolute.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{absolute.name}"
    finally:
        os.close(directory)


def listen(path: Path, *, backlog: int = 64) -> socket.socket:
    """A listening, non-blocking socket at `path`, mode 0600; replaces one left over by a dead process.

    Raises:
        RelayBusy: somebody listens there.
        RelayPathInvalid, OSError: there can be no socket there.
    """
    with short_address(path) as address:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before binding: the file is made with this mode, and is never open to others.
            os.fchmod(listener.fileno(), 0o600)
            try:
                listener.bind(address)
            except OSError:
                if not path.is_socket():
                    raise
                if _answers(address):
                    raise RelayBusy(f"another session service listens on {path}") from None
                path.unlink()
                listener.bind(address)
            listener.listen(backlog)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    return listener


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except BlockingIOError:
            return True  # its backlog is full: somebody is there
        except OSError:
            return False
        return True
