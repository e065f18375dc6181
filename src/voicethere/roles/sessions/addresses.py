"""The address of the signaling socket, as the client that asked can reach it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.signaling import SIGNALING_PATH

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_MAX_HOST_CHARS = 255
_SOCKET_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def check_public_base_url(url: str) -> str:
    """`url` where it can be the base of the service's addresses.

    Raises:
        ValueError: it is none; the words say what would be.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SOCKET_SCHEMES or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"the public base URL must look like https://voice.example.com, not {url!r}")
    return url


def signaling_url(
    settings: SessionServiceSettings, *, scheme: str, headers: Mapping[str, str], server: str
) -> str:
    """The ws or wss URL, without a token.

    From the configured public base URL; or else from the address that the client used: `scheme` and the
    Host header (and what a trusted proxy says of both). `server` (`host:port`) is for a client that sends
    no usable Host.
    """
    if settings.public_base_url is not None:
        parts = urlsplit(check_public_base_url(settings.public_base_url))
        return f"{_SOCKET_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}{SIGNALING_PATH}"
    host = headers.get("host", "")
    if settings.trust_forwarded_headers:
        scheme = _first(headers.get("x-forwarded-proto", "")) or scheme
        host = _first(headers.get("x-forwarded-host", "")) or host
    if len(host) > _MAX_HOST_CHARS or not _HOST.fullmatch(host):
        host = server
    return f"{_SOCKET_SCHEMES.get(scheme.lower(), 'ws')}://{host}{SIGNALING_PATH}"


def _first(value: str) -> str:
    """What the outermost proxy says, where several have."""
    return value.partition(",")[0].strip()
