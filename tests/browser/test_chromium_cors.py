"""What a page on another origin can read of the session API's answers, errors included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.browser.chromium import chromium
from tests.e2e.agents import ECHO
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

NO_PROJECT = "00000000-0000-4000-8000-000000000000"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(origin: str) -> AsyncIterator[Page]:
    async with chromium() as browser:
        page = await browser.new_page()
        await page.goto(origin, wait_until="load")
        yield page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo(operator: Operator) -> Deployed:
    return await operator.deploy(ECHO, name="echo", mode="data")


async def ask(page: Page, url: str, *, key: str, body: str | None = None, **headers: str) -> dict[str, Any]:
    """`status`, `headers` and `body` of the answer as the page can read them; `failed` where it cannot."""
    options = {
        "method": "GET" if body is None else "POST",
        "headers": {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers},
        **({} if body is None else {"body": body}),
    }
    answer: dict[str, Any] = await page.evaluate("([url, options]) => request(url, options)", [url, options])
    return answer


async def test_the_page_really_is_of_another_origin(
    page: Page, platform: RunningPlatform, origin: str, echo: Deployed
) -> None:
    """The control plane is not for pages: what the other tests read, it would not let them."""
    assert origin != platform.base_url
    answer = await ask(page, f"{platform.base_url}/api/v1/projects", key=echo.client_key)
    assert answer == {"failed": "TypeError"}


async def test_a_preflight_and_the_answer_behind_it(
    page: Page, platform: RunningPlatform, echo: Deployed
) -> None:
    headers = {"Idempotency-Key": "one-and-the-same"}
    body = f'{{"project_id": "{echo.project_id}"}}'
    url = f"{platform.base_url}/v1/sessions"
    first = await ask(page, url, key=echo.client_key, body=body, **headers)
    again = await ask(page, url, key=echo.client_key, body=body, **headers)
    assert (first["status"], again["status"]) == (202, 202)
    assert first["body"]["session_id"] == again["body"]["session_id"]
    assert first["headers"]["x-request-id"]
    # A header that the preflight does not grant shows that there is one.
    refused = await ask(page, url, key=echo.client_key, body=body, **{"X-Not-Granted": "1"})
    assert refused == {"failed": "TypeError"}
    polled = await ask(page, f"{url}/{first['body']['session_id']}", key=echo.client_key)
    assert (polled["status"], polled["body"]["project_id"]) == (200, echo.project_id)


@pytest.mark.parametrize(
    ("key", "path", "body", "status", "code"),
    [
        ("vthc_wrong", "/v1/sessions", '{"project_id": "x"}', 401, "UNAUTHORIZED"),
        ("", "/v1/sessions", '{"project_id": "x"}', 401, "UNAUTHORIZED"),
        (None, "/v1/sessions", f'{{"project_id": "{NO_PROJECT}"}}', 404, "NOT_FOUND"),
        (None, f"/v1/sessions/{NO_PROJECT}", None, 404, "NOT_FOUND"),
        (None, "/v1/nowhere", None, 404, "NOT_FOUND"),
        (None, "/v1/sessions", "{}", 422, None),
        (None, "/v1/sessions", "not json", None, None),
        (None, "/v1/sessions", '"' + "x" * 100_000 + '"', 413, None),
    ],
)
async def test_errors_are_readable(
    page: Page,
    platform: RunningPlatform,
    echo: Deployed,
    key: str | None,
    path: str,
    body: str | None,
    status: int | None,
    code: str | None,
) -> None:
    answer = await ask(page, platform.base_url + path, key=echo.client_key if key is None else key, body=body)
    assert "failed" not in answer, "to a page this error looks like a network failure"
    assert answer["status"] == (status or 400)
    error = answer["body"]["error"]
    assert error["message"]
    assert error["request_id"] == answer["headers"]["x-request-id"]
    if code is not None:
        assert error["code"] == code
