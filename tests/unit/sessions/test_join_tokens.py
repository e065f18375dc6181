"""Join tokens: what makes one good, and everything that does not."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest

from voicethere.roles.sessions.tokens import JoinTokens, TokenRefused, new_secret
from voicethere.testing.clock import ManualClock

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(clock: ManualClock) -> JoinTokens:
    return JoinTokens(SECRET, clock)


def forged(clock: ManualClock, secret: bytes = SECRET, *, without: str = "", **claims: Any) -> str:
    good: dict[str, Any] = {
        "sid": "s-1",
        "room": "room-s-1",
        "iat": int(clock.now()),
        "exp": int(clock.now()) + 60,
        "jti": "1",
        "aud": "voicethere-signaling",
    }
    good |= claims
    good.pop(without, None)
    return jwt.encode(good, secret, algorithm="HS256")


def test_a_token_is_good_several_times_for_ten_minutes(tokens: JoinTokens, clock: ManualClock) -> None:
    issued = tokens.issue("s-1", "room-s-1")
    assert issued.expires_at == clock.now() + 600
    for _ in range(3):
        claims = tokens.check(issued.token)
        assert (claims.session_id, claims.room_id) == ("s-1", "room-s-1")
    clock.advance(599.0)
    tokens.check(issued.token)
    clock.advance(1.0)
    with pytest.raises(TokenRefused, match="expired"):
        tokens.check(issued.token)


def test_two_tokens_of_one_session_differ(tokens: JoinTokens) -> None:
    assert tokens.issue("s", "r").token != tokens.issue("s", "r").token


def test_the_test_forges_what_is_good(tokens: JoinTokens, clock: ManualClock) -> None:
    assert tokens.check(forged(clock)).session_id == "s-1"


@pytest.mark.parametrize("claim", ["sid", "room", "iat", "exp", "jti", "aud"])
def test_every_claim_is_required(tokens: JoinTokens, clock: ManualClock, claim: str) -> None:
    with pytest.raises(TokenRefused):
        tokens.check(forged(clock, without=claim))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "somebody-else"},
        {"sid": 7},
        {"room": None},
        {"exp": "tomorrow"},
        {"exp": 9e99},
        {"exp": True},
        {"iat": 1_781_870_400 + 60, "exp": 1_781_870_400 + 120},
        {"exp": 1_781_870_400},
    ],
)
def test_claims_that_say_something_else_are_refused(
    tokens: JoinTokens, clock: ManualClock, claims: dict[str, Any]
) -> None:
    with pytest.raises(TokenRefused):
        tokens.check(forged(clock, **claims))


def test_another_secret_is_refused(tokens: JoinTokens, clock: ManualClock) -> None:
    with pytest.raises(TokenRefused):
        tokens.check(forged(clock, b"another secret of thirty-two bytes"))


def _unsigned(clock: ManualClock) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = jwt.decode(forged(clock), options={"verify_signature": False})
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


@pytest.mark.parametrize("junk", ["", "x", "a.b.c", "..", "é" * 10, "\x00", "x" * 10_000, "e30.e30.e30"])
def test_junk_is_refused(tokens: JoinTokens, junk: str) -> None:
    with pytest.raises(TokenRefused):
        tokens.check(junk)


def test_an_unsigned_token_is_refused(tokens: JoinTokens, clock: ManualClock) -> None:
    with pytest.raises(TokenRefused):
        tokens.check(_unsigned(clock))


def test_a_short_secret_is_refused(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        JoinTokens(b"short", clock)


def test_a_new_secret_is_long_enough_and_no_other_ones() -> None:
    assert len(new_secret()) >= 32
    assert new_secret() != new_secret()
