"""Error bodies, request ids, keys, CORS and body limits, through a small app of a test's own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Annotated

import httpx
import msgspec
import pytest
from litestar import Request, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody, QueryParameter
from structlog.testing import capture_logs

from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.auth import BearerAuth, Principal, new_key, token_hash
from voicethere.adapters.http.cors import CorsPolicy
from voicethere.adapters.http.errors import HttpProblem, conflict
from voicethere.wire.http import HttpErrorBody, HttpErrorCode

TOKEN, HASH, PREFIX = new_key("org")
SERVICE = "service-secret"


class Gone(Exception):
    """Stands for a store that cannot be reached."""


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=10)]
    count: int = 1
    loud: bool = False


class Key(msgspec.Struct, frozen=True):
    id: str
    kind: str
    org_id: str
    project_id: str | None


@post("/things", status_code=200)
async def make_thing(data: JSONBody[Thing]) -> Thing:
    return data


@get("/items")
async def items(limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20) -> dict[str, int]:
    return {"limit": limit}


@get("/taken")
async def taken() -> None:
    raise conflict("The slug 'x' is taken.")


@get("/broken")
async def broken() -> None:
    raise RuntimeError("password=hunter2")


@get("/away")
async def away() -> None:
    raise Gone("disk full at /secret/path")


@get("/me")
async def me(principal: NamedDependency[Principal]) -> dict[str, str | None]:
    return {"key": principal.key_id, "kind": principal.kind}


@post("/guarded", status_code=200)
async def guarded(data: JSONBody[Thing]) -> Thing:
    return data


async def _lookup(digest: str) -> Key | None:
    return Key("k1", "org", "o1", None) if digest == HASH else None


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    auth = BearerAuth(_lookup, hashlib.sha256(SERVICE.encode()).hexdigest())
    private = Router(
        "/v1/private",
        route_handlers=[me, guarded],
        guards=[auth.guard],
        dependencies={"principal": Provide(auth.principal)},
    )
    app = build_app(
        [Router("/v1", route_handlers=[make_thing, items, taken, broken, away]), private],
        title="Test <API>",
        version="1",
        cors=CorsPolicy(path_prefixes=("/v1/",)),
        unavailable=(Gone,),
        body_limit=2000,
    )
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def problem(response: httpx.Response) -> tuple[int, HttpErrorCode, str]:
    body = msgspec.json.decode(response.content, type=HttpErrorBody)
    assert body.error.request_id == response.headers["x-request-id"]
    return response.status_code, body.error.code, body.error.message


async def test_a_good_request_has_a_request_id_and_is_not_kept(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/things", json={"name": "a"})
    assert response.json() == {"name": "a", "count": 1, "loud": False}
    assert len(response.headers["x-request-id"]) == 32
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": "a", "count": "5"}, "`count`: Expected `int`, got `str`"),
        ({"name": "a", "count": True}, "`count`: Expected `int`, got `bool`"),
        ({"name": "a", "loud": 1}, "`loud`: Expected `bool`, got `int`"),
        ({"name": ""}, "`name`: Expected `str` of length >= 1"),
        ({"name": "x" * 11}, "`name`: Expected `str` of length <= 10"),
        ({}, "missing required field `name`"),
        ([], "Expected `object`, got `array`"),
    ],
)
async def test_a_body_of_a_wrong_shape_is_named_and_never_coerced(
    http: httpx.AsyncClient, body: object, named: str
) -> None:
    status, code, message = problem(await http.post("/v1/things", json=body))
    assert (status, code) == (422, HttpErrorCode.VALIDATION_FAILED)
    assert named in message


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"name": "\xff"}', b"[" * 1900, b"{} x"])
async def test_a_body_that_is_no_json_is_a_400(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/v1/things", content=body, headers={"content-type": "application/json"})
    status, code, message = problem(response)
    assert (status, code) in [(400, HttpErrorCode.BAD_REQUEST), (422, HttpErrorCode.VALIDATION_FAILED)]
    if body == b"{":
        assert (status, "no valid JSON" in message) == (400, True)


async def test_an_empty_body_and_a_foreign_media_type_are_told_apart(http: httpx.AsyncClient) -> None:
    status, _, message = problem(await http.post("/v1/things"))
    assert (status, message) == (422, "A JSON object is required as the body.")
    response = await http.post("/v1/things", content=b"a=b", headers={"content-type": "text/plain"})
    assert problem(response)[:2] == (415, HttpErrorCode.UNSUPPORTED_MEDIA_TYPE)


async def test_query_parameters_are_checked_without_repeating_the_query(http: httpx.AsyncClient) -> None:
    status, code, message = problem(await http.get("/v1/items?limit=0&token=geheim"))
    assert (status, code) == (422, HttpErrorCode.VALIDATION_FAILED)
    assert "`limit`" in message
    assert ">= 1" in message
    assert "geheim" not in message


async def test_the_frameworks_own_errors_have_the_same_shape(http: httpx.AsyncClient) -> None:
    assert problem(await http.get("/nowhere"))[:2] == (404, HttpErrorCode.NOT_FOUND)
    assert problem(await http.put("/v1/things"))[:2] == (405, HttpErrorCode.METHOD_NOT_ALLOWED)
    too_large = await http.post("/v1/things", content=b'{"name":"' + b"x" * 3000 + b'"}')
    status, code, message = problem(too_large)
    assert (status, code) == (413, HttpErrorCode.PAYLOAD_TOO_LARGE)
    assert "2000 bytes" in message


async def test_a_problem_of_a_route_and_a_part_that_is_away(http: httpx.AsyncClient) -> None:
    assert problem(await http.get("/v1/taken")) == (409, HttpErrorCode.CONFLICT, "The slug 'x' is taken.")
    response = await http.get("/v1/away")
    status, code, message = problem(response)
    assert (status, code, response.headers["retry-after"]) == (503, HttpErrorCode.UNAVAILABLE, "1")
    assert "secret" not in message


async def test_an_unexpected_exception_says_nothing_of_itself_but_is_logged(http: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        response = await http.get("/v1/broken")
    status, code, message = problem(response)
    assert (status, code) == (500, HttpErrorCode.INTERNAL)
    assert "hunter2" not in response.text
    assert "Traceback" not in message
    assert [entry["event"] for entry in logs] == ["unhandled_exception", "request"]


async def test_a_sane_request_id_is_taken_over_and_another_is_not(http: httpx.AsyncClient) -> None:
    kept = await http.get("/v1/items", headers={"x-request-id": "trace-12345678"})
    assert kept.headers.get_list("x-request-id") == ["trace-12345678"]
    for bad in ("short", "x" * 65, "evil\tid-with-tab"):
        replaced = await http.get("/v1/items", headers={"x-request-id": bad})
        assert replaced.headers["x-request-id"] != bad


async def test_the_log_line_has_no_query_string(http: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        await http.get("/v1/items?limit=5&join_token=geheim")
    assert [(entry["path"], entry["status"]) for entry in logs] == [("/v1/items", 200)]
    assert "geheim" not in repr(logs)


async def test_keys_are_checked_before_a_body_is_read(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/private/guarded", content=b"{", headers={"authorization": "Bearer no"})
    assert problem(response)[:2] == (401, HttpErrorCode.UNAUTHORIZED)
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer " + "x" * 300, "Bearer vth_unknown", "{token}"],
)
async def test_bad_authorization_is_a_401(http: httpx.AsyncClient, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.replace("{token}", TOKEN)}
    response = await http.get("/v1/private/me", headers=headers)
    assert problem(response)[:2] == (401, HttpErrorCode.UNAUTHORIZED)
    assert "www-authenticate" in response.headers


async def test_a_good_key_and_the_service_credential_are_told_apart(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/private/me", headers={"authorization": f"bearer {TOKEN}"})
    assert response.json() == {"key": "k1", "kind": "org"}
    response = await http.get("/v1/private/me", headers={"authorization": f"Bearer {SERVICE}"})
    assert response.json() == {"key": "service", "kind": "service"}
    twice = [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")]
    assert (await http.get("/v1/private/me", headers=twice)).status_code == 401


def test_new_keys_are_long_distinct_and_known_by_their_hash() -> None:
    for kind, start in (("org", "vth_"), ("user", "vthu_"), ("client", "vthc_")):
        token, digest, prefix = new_key(kind)  # type: ignore[arg-type]
        assert token.startswith(prefix)
        assert prefix.startswith(start)
        assert len(token) - len(start) >= 27  # base64 characters of 160 bits
        assert digest == token_hash(token) == hashlib.sha256(token.encode()).hexdigest()
        assert new_key(kind)[0] != token  # type: ignore[arg-type]


async def test_preflights_and_all_answers_carry_cors_headers(http: httpx.AsyncClient) -> None:
    preflight = await http.options(
        "/v1/private/me",
        headers={
            "origin": "https://shop.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,idempotency-key",
        },
    )
    assert preflight.status_code == 204
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "idempotency-key"))
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for path, status in (("/v1/items", 200), ("/v1/private/me", 401), ("/v1/x", 404), ("/v1/broken", 500)):
        response = await http.get(path, headers={"origin": "https://shop.example"})
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, "*")
        assert "x-request-id" in response.headers["access-control-expose-headers"].lower()
        assert "retry-after" in response.headers["access-control-expose-headers"].lower()
    assert "access-control-allow-origin" not in (await http.get("/docs")).headers


def test_a_policy_with_named_origins_answers_only_those() -> None:
    policy = CorsPolicy(path_prefixes=("/v1/",), origins=("https://a.example",))
    assert policy.allowed_origin("https://a.example") == "https://a.example"
    assert policy.allowed_origin("https://b.example") is None


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline_scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        link = given.get("src") or (given.get("href") if tag == "link" else None) or given.get("data-url")
        if link:
            self.links.append(link)
        if tag == "script" and not given.get("src"):
            self.inline_scripts += 1


async def test_the_docs_page_needs_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.status_code == 200
    assert "<title>Test &lt;API&gt;</title>" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    links = _Links()
    links.feed(page.text)
    assert links.inline_scripts == 0
    assert len(links.links) == 5
    for link in links.links:
        assert link.startswith("/")
        asset = await http.get(link)
        assert asset.status_code == 200, link
        assert asset.content
    assert problem(await http.get("/docs/assets/nothing.js"))[0] == 404


async def test_the_document_has_the_closed_list_and_errors_on_every_route(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    text = str(document["components"]["schemas"])
    assert all(f"'{code.value}'" in text for code in HttpErrorCode)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for status in ("400", "401", "404", "422", "500"):
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"]["$ref"].endswith("HttpErrorBody"), (path, method, status)
    assert "/openapi.json" not in document["paths"]


async def test_a_handler_may_read_a_raw_body(http: httpx.AsyncClient) -> None:
    """`HttpProblem` carries headers through."""
    error = HttpProblem(429, HttpErrorCode.CAPACITY_EXCEEDED, "full", headers={"Retry-After": "2"})

    @get("/full")
    async def full(request: Request) -> None:  # type: ignore[type-arg]
        raise error

    transport = httpx.ASGITransport(app=build_app([full], title="t", version="1"))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/full")
    assert problem(response) == (429, HttpErrorCode.CAPACITY_EXCEEDED, "full")
    assert response.headers["retry-after"] == "2"
