"""A chat page that somebody else wrote, in a real browser, on another origin than the gateway."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.chromium import chromium
from tests.integration.chat_proxy.agents import TALKATIVE
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

MILLISECONDS = 20_000
HALF = "Before. Still before."
COUNTED = "".join(f"word {number}, " for number in range(30))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployed(operator: Operator) -> Deployed:
    return await operator.deploy(TALKATIVE, name="talkative", mode="data")


@pytest.fixture
def base_url(platform: RunningPlatform, deployed: Deployed) -> str:
    return f"{platform.base_url}/c/{deployed.client_key}"


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, origin: str) -> AsyncIterator[Page]:
    context = await browser.new_context()
    made = await context.new_page()
    problems: list[str] = []
    made.on("pageerror", lambda error: problems.append(str(error)))
    await made.goto(f"{origin}/chat.html", wait_until="load")
    yield made
    await context.close()
    assert problems == [], "the page itself failed"


async def open_chat(page: Page, base_url: str, conv_id: str) -> dict[str, Any]:
    opened: dict[str, Any] = await page.evaluate(
        "([baseUrl, convId]) => openChat(baseUrl, convId)", [base_url, conv_id]
    )
    return opened


async def say(page: Page, prompt: str) -> dict[str, Any]:
    answer: dict[str, Any] = await page.evaluate("prompt => chat.say(prompt)", prompt)
    return answer


async def shows(page: Page, text: str, **data: str) -> None:
    """Wait until the transcript has a line like this."""
    marks = "".join(f'[data-{name}="{value}"]' for name, value in data.items())
    line = page.locator(f"#transcript li{marks}", has_text=text)
    await line.first.wait_for(timeout=MILLISECONDS)


async def transcript(page: Page) -> list[tuple[str, str]]:
    lines = "lines => lines.map(line => [line.dataset.role || line.dataset.kind, line.textContent])"
    return [(who, text) for who, text in await page.locator("#transcript li").evaluate_all(lines)]


def new_conversation() -> str:
    return f"p-{uuid.uuid4().hex}"


@pytest.mark.states("sem-chat/cors")
async def test_a_page_chats(page: Page, origin: str, base_url: str, platform: RunningPlatform) -> None:
    """sem-chat: "the gateway answers CORS"; "Text is shown by `timeline.upsert` alone"."""
    assert origin != platform.base_url
    assert await open_chat(page, base_url, new_conversation()) == {"status": 200, "version": 0, "entities": 0}
    assert (await say(page, "count 30"))["status"] == 202
    await shows(page, "count 30", role="user")
    await shows(page, COUNTED.strip(), role="assistant", streaming="false")
    assert await transcript(page) == [("user", "count 30"), ("assistant", COUNTED)]
    events = await page.evaluate("() => chat.events")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events][:3] == ["timeline.upsert", "llm.start", "llm.delta"]
    assert sum(event["type"] == "llm.delta" for event in events) > 1, "it grew as it was written"
    assert await page.evaluate("() => chat.streams.size") == 0


async def test_a_reply_is_seen_while_it_is_written(page: Page, base_url: str) -> None:
    await open_chat(page, base_url, new_conversation())
    await say(page, "pause")
    await shows(page, HALF, role="assistant", streaming="true")
    await say(page, "on")
    await shows(page, f"{HALF} After.", role="assistant", streaming="false")


async def test_a_page_sees_an_error_and_still_does_after_a_reload(page: Page, base_url: str) -> None:
    """sem-chat: "An error is a `session.error` frame and a `timeline.upsert` of kind `error`"."""
    conv_id = new_conversation()
    await open_chat(page, base_url, conv_id)
    await say(page, "please crash now")
    await shows(page, "AGENT_HANDLER_FAILED", kind="error")
    failed = await page.evaluate("() => chat.failed")
    assert (failed["code"], failed["recoverable"], failed["streams"]) == ("AGENT_HANDLER_FAILED", False, [])
    assert (await page.locator("#error").text_content() or "").startswith("AGENT_HANDLER_FAILED: ")
    before = await transcript(page)
    ids = await page.locator("#transcript li").evaluate_all("lines => lines.map(line => line.dataset.id)")

    await page.reload(wait_until="load")
    opened = await open_chat(page, base_url, conv_id)
    assert opened["entities"] == len(before)
    assert await transcript(page) == before
    again = await page.locator("#transcript li").evaluate_all("lines => lines.map(line => line.dataset.id)")
    assert again == ids
    assert (await say(page, "goodbye then"))["status"] == 202
    await shows(page, "Goodbye then.", role="assistant")
    assert await page.locator("#status").text_content() == "open"


async def test_a_page_of_an_origin_that_is_not_allowed_can_read_why(
    page: Page, origin: str, operator: Operator, platform: RunningPlatform
) -> None:
    """sem-chat: "origins restricted where the project says so"."""
    shop = await operator.deploy(TALKATIVE, name="shop", mode="data")
    base_url = f"{platform.base_url}/c/{shop.client_key}"

    async def allow(*origins: str) -> None:
        await operator.ask(
            "PATCH",
            f"/projects/{shop.project_id}/settings",
            json={"key": "allowed_origins", "value": list(origins)},
        )

    await allow("https://shop.example")
    refused = await open_chat(page, base_url, new_conversation())
    assert (refused["status"], refused["code"]) == (403, "FORBIDDEN")
    assert "allowed_origins" in refused["body"]
    said = await say(page, "hello")
    assert (said["status"], said["code"]) == (403, "FORBIDDEN")
    # A browser tells no page why a socket was refused.
    assert await page.locator("#status").text_content() == "closed 1006"
    await allow("https://shop.example", origin)
    assert (await open_chat(page, base_url, new_conversation()))["status"] == 200
    assert (await say(page, "hello"))["status"] == 202
    await shows(page, "You said: hello", role="assistant")


async def test_a_page_with_a_key_that_is_wrong_can_read_so(page: Page, platform: RunningPlatform) -> None:
    opened = await open_chat(page, f"{platform.base_url}/c/vthc_wrong", new_conversation())
    assert (opened["status"], opened["code"]) == (401, "UNAUTHORIZED")
    assert (await say(page, ""))["status"] == 401
