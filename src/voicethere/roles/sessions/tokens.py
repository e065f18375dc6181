"""Join tokens: signed, short-lived, bound to one session and its room, good for several joins.

Stateless: whether a session has ended is not known here (the rooms know). Tokens are never logged.
"""

from __future__ import annotations

import secrets

import jwt
import msgspec

from voicethere.core.ports import Clock

JOIN_TOKEN_SECONDS = 600.0
SECRET_BYTES = 32

_ALGORITHM = "HS256"
_AUDIENCE = "voicethere-signaling"
_MAX_TOKEN_CHARS = 2048
_CLOCK_SLACK_SECONDS = 5.0


class TokenRefused(Exception):
    """The token is none of ours, has expired, or its session is over; the words are for a log only."""


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """`expires_at` is in seconds since the epoch."""

    token: str
    expires_at: float


class JoinClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a good token says."""

    session_id: str
    room_id: str
    token_id: str


class JoinTokens:
    """Issues and checks join tokens with one secret.

    Example:
        >>> tokens = JoinTokens(new_secret(), clock)
        >>> tokens.check(tokens.issue("s-1", "room-s-1").token).room_id
        'room-s-1'
    """

    def __init__(self, secret: bytes, clock: Clock, *, life_seconds: float = JOIN_TOKEN_SECONDS) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"the secret of join tokens needs at least {SECRET_BYTES} bytes")
        self._secret = secret
        self._clock = clock
        self._life_seconds = life_seconds

    def issue(self, session_id: str, room_id: str) -> JoinToken:
        """A new token for this session and room."""
        issued_at = int(self._clock.now())
        expires_at = int(issued_at + self._life_seconds)
        claims = {
            "sid": session_id,
            "room": room_id,
            "iat": issued_at,
            "exp": expires_at,
            "jti": secrets.token_hex(8),
            "aud": _AUDIENCE,
        }
        return JoinToken(
            token=jwt.encode(claims, self._secret, algorithm=_ALGORITHM), expires_at=float(expires_at)
        )

    def check(self, token: str) -> JoinClaims:
        """What a token that is good now says.

        Raises:
            TokenRefused: it is malformed, forged, for something else, expired, or from the future.
        """
        if not token or len(token) > _MAX_TOKEN_CHARS:
            raise TokenRefused("no token, or one of an impossible length")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                # Times are checked below, against the clock that was passed in.
                options={
                    "require": ["sid", "room", "iat", "exp", "jti", "aud"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise TokenRefused(f"not a join token: {error}") from error
        values = [claims["sid"], claims["room"], claims["jti"]]
        times = [claims["iat"], claims["exp"]]
        if not all(isinstance(value, str) for value in values) or not all(
            type(time) is int for time in times
        ):
            raise TokenRefused("not a join token: a claim has a wrong type")
        now = self._clock.now()
        if claims["exp"] <= now:
            raise TokenRefused("the join token has expired")
        if claims["iat"] > now + _CLOCK_SLACK_SECONDS:
            raise TokenRefused("the join token is from the future")
        return JoinClaims(session_id=values[0], room_id=values[1], token_id=values[2])


def new_secret() -> bytes:
    """For a platform that has none yet; all of its session services must have the same."""
    return secrets.token_bytes(SECRET_BYTES)
