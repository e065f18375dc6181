"""What every store of bundles checks: the name is a SHA-256, and the bytes are those that it names.

Knows nothing of where bundles are kept, nor of what is inside one.
"""

from __future__ import annotations

import hashlib
import re

_CHECKSUM = re.compile(r"[0-9a-f]{64}")


class BundleDamaged(Exception):
    """The stored bytes are no longer those that were put; the words name the bundle."""


def require_checksum(checksum: str) -> None:
    """Also what keeps a name such as `../x` out of a path.

    Raises:
        ValueError: not a SHA-256 in lower-case hex.
    """
    if _CHECKSUM.fullmatch(checksum) is None:
        raise ValueError(f"a bundle is named by 64 lower-case hex digits, not {checksum[:80]!r}")


def require_match(checksum: str, data: bytes) -> None:
    """Raises ValueError where the bytes that are to be stored are others than their name says."""
    actual = hashlib.sha256(data).hexdigest()
    if actual != checksum:
        raise ValueError(f"these bytes have the checksum {actual}, not {checksum}")


def require_undamaged(checksum: str, data: bytes) -> None:
    """Raises BundleDamaged where the bytes that were read are others than were put."""
    if hashlib.sha256(data).hexdigest() != checksum:
        raise damaged(checksum)


def damaged(checksum: str) -> BundleDamaged:
    """The exception for this bundle."""
    return BundleDamaged(f"the stored bundle {checksum} is damaged: upload it again")
