"""Finds secrets that can be told by their looks: known keys, bearer tokens, PEM blocks, cards, URLs.

Every function takes a text and gives spans, `(start, end)` in characters, of what must not be shown. Each is
linear in the length of the text: no pattern can fail after an unbounded match that another start repeats.
Groups are never possessive: Python before 3.11.5 matches those wrongly where the group itself can backtrack.
What is secret because of the name in front of it is `assignments`' concern.
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Iterator

from voicethere.errors.secret_names import vocabulary

Span = tuple[int, int]

SHORTEST_SHAPE = 8
"""Characters: `bearer x` is the shortest that anything but `url_passwords` finds here."""

# ------------------------------------------------------------------ keys of known shapes

# The first few are found in the middle of a word too: nothing else is written like that.
_SHAPES = r"""(?:
    vth[uc]?_[A-Za-z0-9_\-]{8,}                          # our own
  | gh[pousr]_[A-Za-z0-9]{6,}                            # GitHub
  | github_pat_[A-Za-z0-9_]{6,}
  | glpat-[A-Za-z0-9_\-]{8,}                             # GitLab
  | xox[a-z]-[A-Za-z0-9\-]{6,}                           # Slack
  | AIza[A-Za-z0-9_\-]{10,}                              # Google
  | (?<![A-Za-z0-9])(?:
        sk-[A-Za-z0-9_\-]{12,}                           # OpenAI, Anthropic and others
      | [rsp]k_(?:live|test)_[A-Za-z0-9]{6,}             # Stripe
      | whsec_[A-Za-z0-9+/=]{8,}
      | xapp-[A-Za-z0-9\-]{8,}
      | (?:AKIA|ASIA|ABIA|ACCA|AIDA|AROA)[A-Z0-9]{8,}    # AWS
      | ya29\.[A-Za-z0-9_.\-]{10,}
      | GOCSPX-[A-Za-z0-9_\-]{8,}
      | SG\.[A-Za-z0-9_.\-]{16,}                         # SendGrid
      | npm_[A-Za-z0-9]{16,}
      | pypi-[A-Za-z0-9_\-]{16,}
      | hf_[A-Za-z0-9]{16,}
      | dop_v1_[a-f0-9]{16,}
      | eyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*+){0,4} # JSON Web Tokens, whole or cut
    )
)"""


@functools.cache
def _shapes() -> re.Pattern[str]:
    return re.compile(_SHAPES, re.VERBOSE)


def known_keys(text: str) -> Iterator[Span]:
    """API keys and tokens of the well-known shapes, ours included."""
    for match in _shapes().finditer(text):
        yield match.span()


# ------------------------------------------------------------------ bearer and basic

_NOT_A_TOKEN = vocabulary(
    "token tokens auth authentication authorization scheme header headers format type is was were of "
    "not and or for the in a an must should required missing error invalid prefix key keys credential "
    "credentials expired string value to with from has that challenge check only may can will does "
    "did but if then as on by at be been are this"
)
_CHALLENGE = ("realm=", "error=", "error_description=", "scope=", "charset=")


@functools.cache
def _bearer() -> re.Pattern[str]:
    return re.compile(
        r"(?<![A-Za-z0-9])bearer(?P<word>[ _\-]token)?(?:[ \t]{1,8}|%20|\+|[:=][ \t]{0,8})[\"'`<(]?"
        r"(?P<token>[^\s\"'`<>,;()\]}\\]+)",
        re.IGNORECASE,
    )


@functools.cache
def _basic() -> re.Pattern[str]:
    return re.compile(
        r"(?<![A-Za-z0-9])basic(?:[ \t]{1,8}|%20)(?P<token>[A-Za-z0-9+/_\-]{4,}={0,2})", re.IGNORECASE
    )


def bearer_tokens(text: str) -> Iterator[Span]:
    """What follows `bearer` or `basic`, in a header or in the middle of a sentence."""
    for match in _bearer().finditer(text):
        token = match["token"]
        plain = token.rstrip(".:!?").lower()
        if plain in _NOT_A_TOKEN or token.startswith(_CHALLENGE):
            continue
        if match["word"] and len(token) < 20 and not any(c.isdigit() for c in token):
            continue  # "bearer token rejected"
        yield match.span("token")
    for match in _basic().finditer(text):
        if _is_user_and_password(match["token"]):
            yield match.span("token")


def _is_user_and_password(token: str) -> bool:
    """Whether base64 `token` says `user:password`; tells "basic dXNlcjpwYXNz" from "basic understanding"."""
    if token.endswith("="):
        return True
    usable = token[: len(token) // 4 * 4].replace("-", "+").replace("_", "/")
    try:
        decoded = binascii.a2b_base64(usable)
    except binascii.Error:
        return False
    return b":" in decoded and all(byte >= 32 for byte in decoded[: decoded.index(b":")])


# ------------------------------------------------------------------ PEM

_LONGEST_ORPHAN = 16_384


@functools.cache
def _pem_line() -> re.Pattern[str]:
    return re.compile(r"-----(?P<which>BEGIN|END) (?P<label>[A-Z0-9 ]{0,64}+)(?:-----)?")


@functools.cache
def _pem_body() -> re.Pattern[str]:
    # What may follow a BEGIN line whose END is missing: header lines, lines of nothing but base64 (with
    # the margins that logs add), long runs of base64, and one last piece that was cut short.
    newline = r"(?:\r?\n|\\{1,4}r\\{1,4}n|\\{1,4}n)"
    return re.compile(
        rf"(?:{newline}[ \t>|]{{0,16}}"
        rf"(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash):[^\n\\]{{0,256}}|[A-Za-z0-9+/=]*+)"
        rf"(?={newline}|[ \t\"'`\\]*(?:\Z|\n|[\"'`]))"
        rf"|[ ]{{0,2}}[A-Za-z0-9+/=]{{20,}}+(?:[ ][A-Za-z0-9+/=]++)?)*"
    )


@functools.cache
def _pem_body_backwards() -> re.Pattern[str]:
    return re.compile(r"(?:\s|[nr]\\{1,4}|[A-Za-z0-9+/=])*")


def pem_blocks(text: str) -> Iterator[Span]:
    """PEM blocks whole, and what is left of one whose BEGIN or END was cut off."""
    if "-----" not in text:
        return
    begin: int | None = None
    begin_end = 0
    done = 0
    for match in _pem_line().finditer(text):
        if match["which"] == "BEGIN":
            if begin is not None:
                done = _end_of_body(text, begin_end)
                yield begin, done
            begin, begin_end = match.span()
        elif begin is not None:
            yield begin, match.end()
            begin, done = None, match.end()
        else:
            window = text[max(done, match.start() - _LONGEST_ORPHAN) : match.start()]
            found = _pem_body_backwards().match(window[::-1])
            start = match.start() - (found.end() if found else 0)
            while start < match.start() and text[start].isspace():
                start += 1
            yield start, match.end()
            done = match.end()
    if begin is not None:
        yield begin, _end_of_body(text, begin_end)


def _end_of_body(text: str, start: int) -> int:
    found = _pem_body().match(text, start)
    return found.end() if found else start


# ------------------------------------------------------------------ credit cards


@functools.cache
def _digit_runs() -> re.Pattern[str]:
    return re.compile(r"(?<![0-9])[0-9](?:[ \u00a0\-\u2010-\u2013]?[0-9]){12,}")


@functools.cache
def _digit_groups() -> re.Pattern[str]:
    return re.compile(r"[0-9]+")


def card_numbers(text: str) -> Iterator[Span]:
    """Card numbers: a known brand's prefix and length, a right check digit, not a part of a longer number.

    Timestamps and counters have no brand's prefix; fractions, phone numbers and UUIDs are told by what
    stands around the digits or by their groups.
    """
    for run in _digit_runs().finditer(text):
        before = text[max(0, run.start() - 1) : run.start()]
        fraction = text[run.end() : run.end() + 2]
        if before in (".", "+") or (fraction[:1] == "." and fraction[1:].isdigit()):
            continue
        yield from _cards_in_groups(
            [match.span() for match in _digit_groups().finditer(text, *run.span())], text
        )


def _cards_in_groups(groups: list[Span], text: str) -> Iterator[Span]:
    first = 0
    while first < len(groups):
        digits = ""
        next_first = first + 1
        for last in range(first, len(groups)):
            start, end = groups[last]
            if len(digits) + end - start > 19 or (last > first and end - start > 7):
                break
            digits += text[start:end]
            if len(digits) >= 13 and is_card_number(digits):
                yield groups[first][0], end
                next_first = last + 1
                break
            if not 2 <= end - start <= 7:
                break
        first = next_first


def is_card_number(digits: str) -> bool:
    """Whether `digits` (13 to 19 of them) are a card's number: brand and Luhn check."""
    return _has_brand(digits) and _luhn(digits)


def _has_brand(digits: str) -> bool:
    length, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == "4":
        return length in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720 or 2200 <= four <= 2204:
        return length == 16
    if two in (34, 37):
        return length == 15
    if 300 <= three <= 305 or two in (36, 38, 39):
        return length in (14, 16, 19)
    if 3528 <= four <= 3589 or two in (50, 56, 57, 58, 60, 62, 63, 64, 65, 67, 68, 81, 82):
        return 16 <= length <= 19
    return False


def _luhn(digits: str) -> bool:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 + position % 2)
        total += number - 9 if number > 9 else number
    return total % 10 == 0 and digits.strip("0") != ""


# ------------------------------------------------------------------ URLs

_LONGEST_USERINFO = 256


@functools.cache
def _authority() -> re.Pattern[str]:
    return re.compile(r"[^\s/?#\"'`<>]*+")


@functools.cache
def _rest_of_url() -> re.Pattern[str]:
    return re.compile(rf"[^\s\"'`<>]{{0,{_LONGEST_USERINFO}}}+")


def url_passwords(text: str) -> Iterator[Span]:
    """Passwords in `scheme://user:password@host`; in http(s) URLs the user too, which is often a token."""
    at = text.find("://")
    while at >= 0:
        start = at + 3
        authority = _authority().match(text, start)
        stop = authority.end() if authority else start
        found = _userinfo(text, start, stop)
        if found is not None:
            secret_start, secret_end = found
            if text[max(0, at - 5) : at].lower().endswith(("http", "https")):
                secret_start = start
            elif secret_start is None:
                secret_start = secret_end
            if secret_start < secret_end:
                yield secret_start, secret_end
        at = text.find("://", max(start, stop))


def _userinfo(text: str, start: int, stop: int) -> tuple[int | None, int] | None:
    """Where the password starts (None: there is only a user) and where the user info ends."""
    colon = text.find(":", start, stop)
    at_sign = text.rfind("@", start, stop)
    if at_sign >= 0:
        return (colon + 1 if 0 <= colon < at_sign else None), at_sign
    if colon < 0 or text[colon + 1 : stop].isdigit() or colon + 1 == stop or text[start : start + 1] == "[":
        return None
    # Not a port: a password that holds / ? or #, or one that was cut before its @.
    rest = _rest_of_url().match(text, colon)
    end = rest.end() if rest else stop
    at_sign = text.rfind("@", colon, end)
    if at_sign >= 0:
        return colon + 1, at_sign
    return (colon + 1, end) if end == len(text) else None
