"""Which paths every child may read: what it takes to import and run Python code, and nothing else.

Not /proc (other processes' environments), not /etc as a whole, not the home, not the working folder.
"""

from __future__ import annotations

import mimetypes
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_LIBRARY_FOLDERS = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib")
_SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/zoneinfo",
    # `mimetypes` opens those of these that exist, and would raise if it could see but not read them.
    *mimetypes.knownfiles,
)


def _candidates() -> Iterator[str]:
    yield from (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from sys.path
    yield os.path.join(sys.base_prefix, "lib")
    yield from os.environ.get("LD_LIBRARY_PATH", "").split(":")
    yield from _LIBRARY_FOLDERS
    yield from map(str, _SYSTEM_FILES)


def is_beneath(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it; both absolute and resolved."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _outermost(paths: Iterable[str]) -> list[str]:
    """Leave out what lies beneath another one."""
    kept: list[str] = []
    for path in sorted(paths):
        if not any(is_beneath(path, other) for other in kept):
            kept.append(path)
    return kept


def interpreter_paths() -> list[str]:
    """The existing ones, with symbolic links resolved, as this interpreter sees them now."""
    return _outermost(
        os.path.realpath(path)
        for path in _candidates()
        if path and os.path.isabs(path) and os.path.exists(path)
    )
