"""What is taken out of texts, what stays, and that the text around stays readable."""

from __future__ import annotations

import time

import pytest

from voicethere.errors import Redactor
from voicethere.errors.redact import MARGIN_CHARS, MAX_TEXT_CHARS

OWN = "hunter2-own/se cret"

# Each `<<secret>>` must become `[redacted]`, and nothing else may change.
CASES = {
    "bearer header": "failed with Authorization: Bearer <<abc.def-123>> in it",
    "bearer in a sentence": "tried bearer <<x9>> and was refused",
    "bearer lower case word": "the header was bearer <<abcdef>>",
    "basic header": "Authorization: Basic <<dXNlcjpwYXNz>> was refused",
    "basic in a sentence": "sent basic <<dXNlcjpwYXNzd29yZA==>> twice",
    "unknown scheme": "Authorization: <<Zebra abc123>> was refused",
    "bare authorization": "authorization=<<abc123>>, next",
    "digest parameters": 'Authorization: Digest <<username="Mufasa", response="6629fae49393a05>>"',
    "header in a dict": "{'Authorization': '<<Bearer abc>>', 'Accept': 'x'}",
    "our org key": "key <<vth_abcdefgh12345678>> is not allowed",
    "our user key": "key <<vthu_abcdefgh12345678>> is not allowed",
    "our client key": "key <<vthc_abcdefgh12345678>> is not allowed",
    "inside a word": "keyis<<ghp_abcdefghijkl>> x",
    "openai": "Incorrect API key provided: <<sk-proj-abcdefgh12345678>> .",
    "github": "remote: <<ghp_abcdefghijklmnopqrstuvwxyz0123456789>> denied",
    "github fine-grained": "remote: <<github_pat_11ABCDEFG0abcdefghij>> denied",
    "slack": "slack said <<xoxb-123456789012-abcdefghij>> no",
    "aws": "AccessDenied for <<AKIAIOSFODNN7EXAMPLE>> on s3",
    "google": "url with <<AIzaSyA1234567890abcdefghijklmnopqrstuv>> in it",
    "jwt": "claims of <<eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSM>> expired",
    "jwt without signature": "claims of <<eyJhbGciOiJIUzI1NiJ9.eyJzdWIi>> expired",
    "key=value": "password=<<hunter2>>, user=bob",
    "key = value": "password = <<hunter2>> user = bob",
    "key: value": "got password: <<hunter2>> for bob",
    "two words": "the api key: <<zzz>> and the primary key: 77",
    "semicolons": "Server=x;Password=<<p,a&s;s>>;Uid=3",
    "inside a call": "connect(password=<<hunter2>>) failed",
    "json": '{"password": "<<hun\\"ter2>>", "user": "bob"}',
    "json in a string": '{\\"password\\": \\"<<hun ter2>>\\", \\"user\\": \\"bob\\"}',
    "json twice in a string": '{\\\\\\"token\\\\\\": \\\\\\"<<hun ter2>>\\\\\\", 1}',
    "cut json": '{"user": "bob", "password": "<<hunter2 and more>>',
    "python dict": "{'api_key': '<<abc def>>', 'author': 'Bob'}",
    "python bytes": "{b'api_key': b'<<abc def>>'}",
    "header pairs": "[(b'cookie', b'<<sid=1; x=2>>'), (b'host', b'x')]",
    "list of secrets": '{"tokens": <<["abc", "def"]>>, "n": 1}',
    "spaced passphrase line": "config:\npassword: <<correct horse battery staple>>\nport: 8080",
    "line": "api_key: <<abc>>\nuser: bob",
    "query": "GET /x?token=<<abc>>&page=2",
    "query access_token": "GET /x?page=2&access_token=<<abc>> 200",
    "query api_key and signature": "https://h/x?api_key=<<abc>>&signature=<<d%3Df>>&v=1",
    "aws query": "https://s3/x?X-Amz-Signature=<<0abc>>&X-Amz-Date=20260101",
    "google query key": "https://maps/x?key=<<abcdefghijklmnop1234>>&v=1",
    "encoded query": "?next=https%3A%2F%2Fx%3Ftoken%3D<<abc>>%26u%3D1",
    "fragment": "https://app/#access_token=<<abc>>&state=1",
    "url userinfo": "postgres://bob:<<hunter2>>@db:5432/x refused",
    "url password with a slash": "postgres://bob:<<hun/ter?2#>>@db:5432/x refused",
    "url password with an at": "amqp://bob:<<hun@ter2>>@mq/x refused",
    "url without a user": "redis://:<<hunter2>>@cache:6379/0",
    "url token": "cloning https://<<oauth2token>>@github.com/a/b",
    "url user and password": "cloning https://<<bob:pass>>@github.com/a/b",
    "cookie": "Cookie: <<sid=abc; theme=dark>> was refused",
    "cookie of curl": "curl -H 'Cookie: <<a=b; c=d>>' https://x/y",
    "set-cookie": "Set-Cookie: <<sid=abc; HttpOnly>>",
    "command line": "run --password <<hunter2>> --verbose",
    "argument list": "['--token', '<<abc def>>', '--verbose']",
    "quoted after the name": "invalid password '<<hunter2>>' for bob",
    "xml": "<user>bob</user><password><<hunter2>></password>",
    "form": "user[password]=<<hunter2>>&user[name]=bob",
    "card with spaces": "card <<4111 1111 1111 1111>> was declined",
    "card with dashes": "card <<5500-0055-5555-5559>> was declined",
    "card of digits": "card <<378282246310005>>, declined",
    "card and expiry": "card <<4111 1111 1111 1111>> 12/27",
    "own secret": f"wrong: <<{OWN}>>.",
    "own secret in a word": f"x<<{OWN}>>y",
    "own secret url-encoded": "wrong: <<hunter2-own%2Fse%20cret>>.",
    "own secret url-encoded, lower case": "wrong: <<hunter2-own%2fse+cret>>.",
    "own secret json-escaped": "wrong: <<hunter2-own\\/se\\u0020cret>>.",
    "own secret in base64": "wrong: <<aHVudGVyMi1vd24vc2UgY3JldA==>> .",
    "own secret cut at the end": "wrong: <<hunter2-own/s>>",
    "pem": "key:\n<<-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBA\nxy=\n-----END RSA PRIVATE KEY----->>\nnext",
    "pem with escapes": 'x "<<-----BEGIN PRIVATE KEY-----\\nMIIEowIB\\n-----END PRIVATE KEY----->>\\n" y',
    "pem without its end": "key\n<<-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAA\nabc>>\nValueError: bad key",
    "encrypted pem without its end": "<<-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEow\nab>>",
    "pem without its beginning": ".\n<<MIIEowIBAAKCAQEAxyz\nabc==\n-----END RSA PRIVATE KEY----->>\nrest",
}

UNTOUCHED = [
    "",
    "the bearer token was invalid",
    'WWW-Authenticate: Bearer realm="x", error="invalid_token"',
    "bearer authentication is required",
    "a basic understanding of things",
    "author: Bob, monkey: 3, keyboard=us, keys=7",
    "tokens_used=512 max_tokens=4096 total_tokens: 77 tokens: 12",
    "has_password: true, is_token=false, password: None, token=null",
    "def login(user: str, password: str) -> None:",
    "password_reset_url=https://example.com/reset?id=3",
    "SyntaxError: unexpected token: '<' in JSON",
    "timestamps 1718798400000 and 1718798400000000 and 1718798400000000000",
    "id 550e8400-e29b-41d4-a716-446655440000 and 4123456789012345678901",
    "order 4111111111111112 has no right check digit",
    "0.4111111111111111 of +4111111111111111",
    "2026-06-19T12:00:00.000Z at 12:00:00",
    '  File "agent.py", line 3, in on_user_speech_final',
    "http://127.0.0.1:8080/path and ws://[::1]:9000/x and git+ssh://git@github.com/a/b",
    "the password is wrong; a secret is missing; cookies are off",
    "mask-and-task-sk-x disk-usage ghp_ vth_",
    "required = ['password', 'email', 'name']",
    "-----",
    "error codes: NOT_DEPLOYED code=JOIN_TOKEN_ERROR",
    "?code=abc&page=2&key=short",
]


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor([OWN, "abc", "true"])


def marked(case: str) -> tuple[str, str]:
    """The text of a case, and what it must become."""
    expected, rest = "", case
    while "<<" in rest:
        before, _, rest = rest.partition("<<")
        _, _, rest = rest.partition(">>")
        expected += before + "[redacted]"
    return case.replace("<<", "").replace(">>", ""), expected + rest


@pytest.mark.parametrize("name", CASES)
def test_secrets_go_and_the_rest_stays(name: str, redactor: Redactor) -> None:
    text, expected = marked(CASES[name])
    assert redactor.text(text) == expected
    assert redactor.text(expected) == expected


@pytest.mark.parametrize("text", UNTOUCHED)
def test_what_is_no_secret_stays(text: str, redactor: Redactor) -> None:
    assert redactor.text(text) == text


def test_own_secrets_that_overlap_leave_nothing_of_either() -> None:
    assert Redactor(["abcd1234", "1234efgh"]).text("x abcd1234efgh y") == "x [redacted] y"
    assert Redactor(["abab"]).text("x ababab y") == "x [redacted] y"


def test_own_secrets_in_the_middle_of_base64() -> None:
    import base64

    for prefix in ("", "u", "us", "user:"):
        text = base64.b64encode(f"{prefix}correct-horse-battery:x".encode()).decode()
        assert Redactor(["correct-horse-battery"]).text(f"a {text} b") == "a [redacted] b"


def test_own_secrets_of_several_lines_and_alphabets() -> None:
    secret = 'line one\n"zwei" é 😀 <&>'
    redactor = Redactor([secret])
    import json
    import urllib.parse

    for written in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        urllib.parse.quote(secret),
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
        urllib.parse.quote(urllib.parse.quote(secret)),
    ):
        assert redactor.text(f"a {written} b") == "a [redacted] b", written


def test_long_own_secrets_are_found_in_part() -> None:
    secret = "".join(f"{number:04x}" for number in range(1000))
    shown = Redactor([secret]).text(f"a {secret[1000:2000]} b {secret} c")
    assert all(secret[at : at + 160] not in shown for at in range(0, len(secret) - 160, 16))
    assert shown.endswith("b [redacted] c")


def test_trivial_own_secrets_are_ignored() -> None:
    assert Redactor(["", "a", "abc", "true", "None"]).text("abc true None a") == "abc true None a"


def test_a_secret_that_is_a_part_of_the_placeholder_ends() -> None:
    redactor = Redactor(["redacted", "[redacted]", "acte"])
    once = redactor.text("a redacted character")
    assert once == "a [redacted] char[redacted]r"
    assert redactor.text(once) == once


def test_a_redactor_never_prints_what_it_knows() -> None:
    assert OWN not in repr(Redactor([OWN]))
    assert not hasattr(Redactor([OWN]), "__dict__")


def test_the_middle_of_a_huge_text_is_left_out_visibly() -> None:
    text = "first " + "word and " * 200_000 + " last"
    shown = Redactor().text(text)
    assert shown.startswith("first ")
    assert shown.endswith(" last")
    assert "characters left out" in shown
    assert len(shown) <= MAX_TEXT_CHARS
    assert Redactor().text(shown) == shown


@pytest.mark.parametrize("shift", range(-30, 31, 3))
def test_a_secret_across_a_cut_is_gone_whole(shift: int) -> None:
    limit = 2_048
    half = limit // 2 - 64
    secret = "ghp_" + "Zx9" * 12
    for cut_from_start in (half, 60_000 - half):
        at = cut_from_start + shift - len(secret) // 2
        text = "a " * (at // 2) + " " * (at % 2) + secret + " b" * 40_000
        text = text[:60_000]
        assert secret in text
        shown = Redactor().text(text, limit=limit)
        assert all(secret[i : i + 6] not in shown for i in range(len(secret) - 6))


def test_a_key_block_across_a_cut_is_gone_whole() -> None:
    body = "\n".join("MIIEowIBAAKCAQEAq1x9Zk3v5w7y0b2d4f6h8j1l3n5p7r9t" for _ in range(60))
    block = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    for at in (0, 400, 900, 1_500, 40_000, 55_000, 57_000, 58_500):
        text = (
            ("line of text\n" * 6_000)[:at] + "\n" + block + "\n" + ("line of text\n" * 6_000)[: 60_000 - at]
        )
        assert "AKCAQEA" not in Redactor().text(text, limit=2_048)


def test_a_word_longer_than_the_margin_is_left_out() -> None:
    text = "a" * 40_000 + "Q" * (MARGIN_CHARS * 4)
    assert "Q" not in Redactor().text(text, limit=1_024)


# A text that repeats the beginning of something: what a search that goes back would choke on.
REPEATED = [
    *("a", "a:", "token:", "token:[", "token:[\n", '"token":"', '"token":', "token=", "token='", "token=a,"),
    *("('token','", "token='\\", " token 'x", "a://b:c/", "://", "-----BEGIN A-----", "-----END A-----"),
    *("-----BEGIN A-----\nabc\n", "4 ", "41 ", "4111 ", "eyJ-", "eyJaaaaaaaa.", "bearer ", "basic abcd:"),
    *("authorization: ", "cookie: a;", "\\", '\\"', "--token ", "[redacted]", "%3D", "x%26a%3D", "sk-", "\n"),
    *("aaaaaaab", "<token>", "key key: ", "@", "a=b;c"),
]


@pytest.mark.parametrize("part", REPEATED)
def test_no_text_takes_more_than_its_share_of_time(part: str) -> None:
    redactor = Redactor(["a" * 40, "aab" * 20])

    def seconds(length: int) -> float:
        text = (part * (length // len(part) + 1))[:length]
        best = float("inf")
        for _ in range(2):
            start = time.process_time()
            redactor.text(text)
            best = min(best, time.process_time() - start)
        return best

    # Twice the text in about twice the time; a quadratic search would need sixteen times as much.
    assert seconds(40_000) < 8 * seconds(10_000) + 0.05
