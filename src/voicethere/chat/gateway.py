"""A chat gateway as this client reaches it: addresses, headers, TLS and the one HTTP client.

Knows no conversation's state and records nothing.
"""

from __future__ import annotations

import inspect
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping

import httpx
import msgspec

from voicethere.chat.endpoints import Endpoints
from voicethere.chat.http import fetch_timeline, submit_prompt
from voicethere.chat.limits import ChatLimits, ChatTimings
from voicethere.chat.socket import ChatSocket
from voicethere.wire.sem import SnapshotReading

Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Headers, or a function that gives them (plain or async), called for each attempt."""

# Servers let go of idle connections after 2 s or more. A prompt must not go out on one just then: that would
# fail, and nobody could tell whether it was accepted.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=1.0)
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Target(msgspec.Struct, frozen=True):
    """What a conversation is connected with: two connections with the same may be one."""

    profile: str | None = None
    registry: str | None = None


class Gateway:
    """Requests to one gateway. Close it with `aclose`.

    Raises:
        TypeError, ValueError: headers that are none.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        headers: Headers | None,
        limits: ChatLimits,
        timings: ChatTimings,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._endpoints = endpoints
        self._headers: Headers = headers if callable(headers) else checked_headers(headers or {})
        self._limits = limits
        self._timings = timings
        self._ssl_context = ssl_context
        self._client: httpx.AsyncClient | None = None

    @property
    def prompts_url(self) -> str:
        """Where prompts go."""
        return self._endpoints.prompts

    async def headers(self) -> Mapping[str, str]:
        """The headers for one attempt.

        Raises:
            TypeError, ValueError: the application's function gave none; or whatever it raised.
        """
        if not callable(self._headers):
            return self._headers
        given = self._headers()
        if inspect.isawaitable(given):
            given = await given
        return checked_headers(given)

    async def submit(self, conv_id: str, prompt: str, target: Target, headers: Mapping[str, str]) -> None:
        """See `submit_prompt`."""
        await submit_prompt(
            self._http(),
            self._endpoints,
            conv_id,
            prompt,
            profile=target.profile,
            registry=target.registry,
            headers=headers,
            timeout=self._timings.prompt_timeout,
        )

    async def timeline(self, conv_id: str, headers: Mapping[str, str]) -> SnapshotReading:
        """See `fetch_timeline`."""
        return await fetch_timeline(
            self._http(),
            self._endpoints,
            conv_id,
            headers=headers,
            timeout=self._timings.snapshot_timeout,
            max_bytes=self._limits.snapshot_bytes,
        )

    def socket(self, conv_id: str, target: Target, headers: Mapping[str, str]) -> ChatSocket:
        """A socket for the conversation, not open yet."""
        url = self._endpoints.socket(conv_id, target.profile, target.registry)
        return ChatSocket(
            url, headers, limits=self._limits, timings=self._timings, ssl_context=self._ssl_context
        )

    async def aclose(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            # Every request has a deadline of its own, which also bounds a body that trickles.
            verify = self._ssl_context if self._ssl_context is not None else True
            self._client = httpx.AsyncClient(timeout=None, verify=verify, limits=_LIMITS)  # noqa: S113
        return self._client


def checked_headers(headers: object) -> dict[str, str]:
    """Headers that can be sent as they are.

    Raises:
        TypeError: not a mapping of strings.
        ValueError: a name or a value that HTTP does not allow, such as one with a line break.
    """
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping of names to values, not {type(headers).__name__}")
    checked = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("headers must have strings as names and values")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is not a header's name")
        if not value.isascii() or not value.isprintable():
            # Not shown: it may well be a secret.
            raise ValueError(f"the value of the header {name} must be printable ASCII")
        checked[name] = value
    return checked
