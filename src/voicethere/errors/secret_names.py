"""Which names announce a secret: `password`, `apiKey`, `X-Auth-Token`, but not `author` or `max_tokens`.

This module judges names only; what stands behind a name is judged by `redact` and `assignments`.

The rules. A name is split into words at case changes, digits and punctuation (`clientSecret` and
`CLIENT-SECRET` are the same two words), and then:

1. Trailing words that only say which or how (`new`, `hash`, `header`, `value`, `2`) are left out.
2. The *last* remaining word decides: `reset_password` names a password, `password_reset_url` a URL.
3. A few last words are secret by themselves (`password`, `token`, `cookie`); others only after a word that
   makes them so (`api key` but not `primary key`, `card number` but not `page number`).
4. A few words before the last make it harmless (`page_token`, `function_signature`).
5. Words written together count too (`PGPASSWORD`, `authtoken`), but never by a mere part: `secretary`.
6. Plurals (`tokens`) and names that begin like a flag or a count (`has_password`, `max_token`) are secret
   unless what stands there is a number: `Sensitivity.COUNT`.
"""

from __future__ import annotations

import enum
import functools
import re


class Sensitivity(enum.IntEnum):
    """What a name says of its value."""

    PLAIN = 0
    COUNT = 1
    """Secret, unless the value is a number."""
    SECRET = 2


def vocabulary(words: str) -> frozenset[str]:
    """The words of a text, as a set to look them up in."""
    return frozenset(words.split())


_SECRET_NOUNS = vocabulary(
    "password passwd pwd pw pword passphrase passcode passkey passwort kennwort secret token "
    "credential cred authorization auth cookie jwt bearer apikey privkey otp totp pin cvv cvc ccv csc "
    "ssn mnemonic sessid phpsessid jsessionid sig signature"
)
_PLURALS = vocabulary(
    "passwords passwds passphrases secrets tokens credentials creds cookies apikeys jwts passcodes pins"
)
_SECRET_AFTER: dict[str, frozenset[str]] = {
    "key": vocabulary(
        "api access private secret signing signature encryption decryption cipher crypto master root "
        "service account storage shared subscription auth session ssh hmac aes rsa ecdsa webhook "
        "client admin deploy function functions app application license priv jwt tls ssl openai "
        "anthropic deepgram elevenlabs stripe twilio sendgrid github gitlab azure aws google gcp"
    ),
    "card": frozenset({"credit", "debit", "bank", "payment"}),
    "number": frozenset({"card", "cc", "credit", "security"}),
    "no": frozenset({"card", "cc"}),
    "num": frozenset({"card", "cc"}),
    "code": frozenset(
        {"security", "verification", "recovery", "backup", "mfa", "auth", "authorization", "otp"}
    ),
    "phrase": frozenset({"pass", "seed", "recovery", "secret"}),
    "word": frozenset({"pass"}),
    "sid": frozenset({"connect"}),
}
_HARMLESS_BEFORE: dict[str, frozenset[str]] = {
    "token": vocabulary(
        "page continuation cursor eos bos pad unk sep cls mask stop cancel cancellation syntax "
        "unexpected special lexer parser"
    ),
    "signature": vocabulary("function method type call class email mail key time image file"),
    "pin": frozenset({"gpio", "map", "led"}),
}
_WRITTEN_TOGETHER = (
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "secretkey",
    "privatekey",
    "accesskey",
    "signingkey",
    "encryptionkey",
    "sessionkey",
    "creditcard",
    "cardnumber",
    "secret",
    "token",
    "cookie",
    "authorization",
)
_WHICH_OR_HOW = vocabulary(
    "value val raw plain plaintext string str hash hashed digest encrypted encoded b hex pem header "
    "headers confirmation confirm repeat again old new current previous prev next prod production dev "
    "staging test live base v json bytes env primary secondary backup default"
)
_FLAG_OR_COUNT = vocabulary(
    "is has have had needs need require requires required use uses used allow allows enable enabled "
    "disable disabled show hide no num n nb max min total count avg mean supports should can with "
    "without missing"
)

_HINT = re.compile(
    r"pass|pwd|pw|secret|token|key|auth|cookie|cred|card|code|jwt|bearer|otp|pin|cv[vc]|ccv|csc|ssn|mnemonic"
    r"|sess|sig|kennwort|phrase|sid|cc",
    re.IGNORECASE,
)
_LONGEST_NAME = 160


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    return re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def words_of(name: str) -> list[str]:
    """`name` as lower-case words: `X-APIKey2` gives `x`, `api`, `key`, `2`."""
    return [word.lower() for word in _word_pattern().findall(name)]


def may_hold_name(text: str) -> bool:
    """False where no part of `text` can be a name that `sensitivity` finds anything but plain."""
    return _HINT.search(text) is not None


def sensitivity(name: str) -> Sensitivity:
    """What `name` says of the value that it names. Only its last 160 characters are looked at.

    Example:
        >>> sensitivity("clientSecret"), sensitivity("author"), sensitivity("max_tokens")
        (<Sensitivity.SECRET: 2>, <Sensitivity.PLAIN: 0>, <Sensitivity.COUNT: 1>)
    """
    name = name[-_LONGEST_NAME:]
    if _HINT.search(name) is None:
        return Sensitivity.PLAIN
    words = words_of(name)
    while len(words) > 1 and (words[-1] in _WHICH_OR_HOW or words[-1].isdigit()):
        words.pop()
    if not words:
        return Sensitivity.PLAIN
    found = _by_last_word(words)
    if found is Sensitivity.SECRET and len(words) > 1 and words[0] in _FLAG_OR_COUNT:
        return Sensitivity.COUNT
    return found


def _by_last_word(words: list[str]) -> Sensitivity:
    last = words[-1]
    before = words[-2] if len(words) > 1 else ""
    if before in _HARMLESS_BEFORE.get(last, ()):
        return Sensitivity.PLAIN
    if last == "pass":
        # "3 pass, 1 fail" counts; "db_pass" names a password.
        return Sensitivity.SECRET if before else Sensitivity.COUNT
    if last in _SECRET_NOUNS or before in _SECRET_AFTER.get(last, ()):
        return Sensitivity.SECRET
    if last in _PLURALS or (last.endswith("s") and before in _SECRET_AFTER.get(last[:-1], ())):
        return Sensitivity.COUNT
    if last.endswith(_WRITTEN_TOGETHER) or "".join(words[-2:]) in _WRITTEN_TOGETHER:
        return Sensitivity.SECRET
    return Sensitivity.PLAIN
