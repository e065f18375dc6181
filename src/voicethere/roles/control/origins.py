"""Origins of pages, as a browser sends them in `Origin`: scheme, host, and a port that is not the usual one.

Knows nothing of who compares them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

_USUAL_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_MAX_CHARS = 300


def as_sent(origin: str) -> str:
    """`origin` as browsers send it: lower case, without a final slash and the usual port.

    Raises:
        ValueError: it is none; the words say what is wrong.
    """
    if origin == "*":
        raise ValueError("'*' is no origin: leave the list empty to allow every page")
    text = origin.strip().removesuffix("/").lower()
    wrong = ValueError(
        f"{origin[:80]!r} is no origin: it is like https://shop.example or http://localhost:3000"
    )
    if len(text) > _MAX_CHARS or not text.isascii() or not text.isprintable():
        raise wrong
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in _USUAL_PORTS or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong
    # `urlsplit` has checked what stands in brackets.
    shown = f"[{host}]" if ":" in host else host
    if port == 0 or not ("[" in parts.netloc or _HOST.fullmatch(host)):
        raise wrong
    built = f"{parts.scheme}://{shown}"
    # An empty port, spaces or anything else that is not said back is not understood.
    if text not in (built, f"{built}:{port}"):
        raise wrong
    return built if port in (None, _USUAL_PORTS[parts.scheme]) else f"{built}:{port}"


def all_as_sent(origins: Sequence[str]) -> list[str]:
    """Each once, in their order.

    Raises:
        ValueError: one is none.
    """
    return list(dict.fromkeys(as_sent(origin) for origin in origins))
