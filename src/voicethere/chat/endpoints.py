"""Where a gateway's three endpoints are. Knows addresses only; nothing is asked of anybody here."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit, urlunsplit

_SOCKET_SCHEMES = {"http": "ws", "https": "wss"}


class Endpoints:
    """The addresses under one base, such as `https://host/c/vthc_…`, and a prefix path behind it.

    Raises:
        TypeError: the base or the prefix is not a string.
        ValueError: the base is not an http(s) address, or has a query, a fragment or credentials in it; or
            the prefix is not a path.

    Example:
        >>> Endpoints("https://example.com/c/key").socket("conv-1")
        'wss://example.com/c/key/ws?conv_id=conv-1'
    """

    def __init__(self, base_url: str, prefix: str = "") -> None:
        if not isinstance(base_url, str):
            raise TypeError(f"base_url must be a string, not {type(base_url).__name__}")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be a string, not {type(prefix).__name__}")
        if not base_url.isprintable() or " " in base_url:
            raise ValueError("base_url must not contain spaces or control characters")
        try:
            parts = urlsplit(base_url)
            parts.port  # noqa: B018 - raises for a port that is none
        except ValueError as error:
            raise ValueError(f"base_url is not an address: {error}") from error
        if parts.scheme not in _SOCKET_SCHEMES or not parts.hostname:
            raise ValueError(
                "base_url must be an http or https address with a host, such as https://host/c/KEY, "
                f"not {base_url!r}"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError("base_url must not contain credentials: pass an Authorization header")
        if parts.query or parts.fragment:
            raise ValueError("base_url must have neither a query nor a fragment")
        path = prefix.strip("/")
        if not path.isprintable() or any(sign in path for sign in " ?#\\"):
            raise ValueError(f"prefix must be a path, such as /chat-api, not {prefix!r}")
        self._scheme, self._host = parts.scheme, parts.netloc
        self._path = parts.path.rstrip("/") + (f"/{path}" if path else "")

    @property
    def prompts(self) -> str:
        """Where prompts are posted."""
        return self._url(self._scheme, "/chat")

    def timeline(self, conv_id: str) -> str:
        """Where the conversation's snapshot is."""
        return self._url(self._scheme, "/api/timeline", conv_id=conv_id)

    def socket(self, conv_id: str, profile: str | None = None, registry: str | None = None) -> str:
        """Where the conversation's frames come from."""
        return self._url(
            _SOCKET_SCHEMES[self._scheme], "/ws", conv_id=conv_id, profile=profile, registry=registry
        )

    def _url(self, scheme: str, path: str, **query: str | None) -> str:
        given = urlencode({name: value for name, value in query.items() if value})
        return urlunsplit((scheme, self._host, self._path + path, given, ""))
