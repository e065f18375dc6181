"""Dead letters over the API: the operator sees them, replays them as they are or corrected; none is lost."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import msgspec
import pytest

from voicethere.core.ports import QueueUnavailable
from voicethere.testing.queue import sample_error
from voicethere.wire.queue import QueueItem, encode

PATH = "/dead-letters"
JUNK = b'{"t": "error", \x1b[31m'


async def bury(platform: Any, *data: bytes, problem: str = "the database refuses this error") -> list[int]:
    """Their numbers, in the order of `data`."""
    for one in data:
        await platform.store.commit_batch([], [(one, problem)])
    letters = await platform.store.dead_letters(limit=len(data))
    return [letter.number for letter in letters][::-1]


async def work(platform: Any) -> list[QueueItem | None]:
    """Do what a worker does once: commit what is on the queue, bury what cannot be, acknowledge."""
    deliveries = await platform.queue.receive(limit=100, wait_seconds=0)
    items = [delivery.item for delivery in deliveries if delivery.item is not None]
    dead = [(delivery.data, delivery.problem) for delivery in deliveries if delivery.item is None]
    await platform.store.commit_batch(items, dead)
    await platform.queue.acknowledge([delivery.position for delivery in deliveries])
    return [delivery.item for delivery in deliveries]


async def session_of(platform: Any, project_id: str) -> str:
    session_id = f"s-{uuid.uuid4().hex}"
    await platform.store.create_session(
        session_id=session_id,
        project_id=project_id,
        build_id=None,
        customer_context=None,
        idempotency_key=None,
    )
    return session_id


async def test_letters_are_listed_newest_first_in_pages(platform: Any, api: Any) -> None:
    assert await api.get(PATH) == {"dead_letters": [], "count": 0}
    numbers = await bury(platform, *(f"letter {n}".encode() for n in range(5)))
    newest = numbers[::-1]
    page = await api.get(PATH, limit=2)
    assert [letter["number"] for letter in page["dead_letters"]] == newest[:2]
    assert (page["count"], page["next_before"]) == (5, newest[1])
    rest = await api.get(PATH, before=page["next_before"])
    assert [letter["number"] for letter in rest["dead_letters"]] == newest[2:]
    assert "next_before" not in rest
    first = page["dead_letters"][0]
    assert set(first) == {"number", "created_at", "size_bytes", "truncated", "problem", "preview"}
    assert (first["size_bytes"], first["truncated"], first["preview"]) == (8, False, "letter 4")
    assert await api.get(PATH, limit=5) == {**(await api.get(PATH)), "count": 5}


async def test_a_preview_is_one_bounded_line_without_controls(platform: Any, api: Any) -> None:
    hostile = "\x1b[31mred\u202e\n\x00 é €".encode() + b"\xff\xfe"
    await bury(platform, hostile, b"\xe2\x82\xac" * 5000)
    long, short = (letter["preview"] for letter in (await api.get(PATH))["dead_letters"])
    assert short == "\\x1b[31mred\\u202e\\n\\x00 é €\\xff\\xfe"
    assert long == "€" * 199 + "…"


async def test_a_letter_is_shown_with_its_text_or_its_bytes(platform: Any, api: Any) -> None:
    readable, unreadable = await bury(platform, JUNK, b"\xff\x00")
    shown = await api.get(f"{PATH}/{readable}")
    assert (shown["text"], shown["problem"]) == (JUNK.decode(), "the database refuses this error")
    assert "base64" not in shown
    shown = await api.get(f"{PATH}/{unreadable}")
    assert base64.b64decode(shown["base64"]) == b"\xff\x00"
    assert "text" not in shown


async def test_a_letter_is_replayed_as_it_is(platform: Any, api: Any) -> None:
    project_id = await api.project()
    item = sample_error(await session_of(platform, project_id), project_id)
    (number,) = await bury(platform, encode(item))
    assert await api.post(f"{PATH}/{number}/replay", status=202) == {"number": number}
    assert await work(platform) == [item]
    assert (await api.refused("GET", f"{PATH}/{number}"))[:2] == (404, "NOT_FOUND")


async def test_what_fails_again_is_a_letter_again(platform: Any, api: Any) -> None:
    """Even where the worker is quicker than the answer to the replay: the new letter stays."""
    item = sample_error("no-such-session", await api.project())
    (number,) = await bury(platform, encode(item))
    put = platform.queue.put

    async def put_and_work(items: Any) -> None:
        await put(items)
        await work(platform)

    platform.queue.put = put_and_work
    await api.post(f"{PATH}/{number}/replay", status=202)
    (letter,) = (await api.get(PATH))["dead_letters"]
    assert letter["number"] > number
    assert "no session 'no-such-session'" in letter["problem"]


async def test_a_letter_is_replayed_corrected(platform: Any, api: Any) -> None:
    project_id = await api.project()
    session_id = await session_of(platform, project_id)
    item = sample_error(session_id, project_id)
    (number,) = await bury(platform, JUNK)
    wrong = msgspec.to_builtins(item)
    wrong["record"]["code"] = "MADE_UP"
    status, _, message = await api.refused("POST", f"{PATH}/{number}/replay", json={"item": wrong})
    assert (status, "`item.record.code`" in message) == (422, True)
    for body in ({"item": {"t": "unknown"}}, {"item": []}, [], "x"):
        assert (await api.refused("POST", f"{PATH}/{number}/replay", json=body))[0] == 422
    huge = {"item": {**msgspec.to_builtins(item), "more": "x" * 300_000}}
    assert (await api.refused("POST", f"{PATH}/{number}/replay", json=huge))[0] == 413
    await api.post(f"{PATH}/{number}/replay", {"item": msgspec.to_builtins(item)}, 202)
    await work(platform)
    (row,) = (await api.get(f"/projects/{project_id}/session-errors"))["errors"]
    assert row["id"] == item.record.id
    assert (await api.get(PATH))["count"] == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (JUNK, "still no item of the queue"),
        (b"\xff\x00", "still no item of the queue"),
        (b"", "still no item of the queue"),
        (b"[" * 50_000, "still no item of the queue"),
        (b"x" * (64 * 1024 + 1), "only the first 65536 of its 65537 bytes were kept"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_reason(
    platform: Any, api: Any, data: bytes, words: str
) -> None:
    (number,) = await bury(platform, data)
    status, code, message = await api.refused("POST", f"{PATH}/{number}/replay")
    assert (status, code) == (409, "CONFLICT")
    assert words in message
    assert '{"item": {…}}' in message
    assert await platform.queue.depth() == 0
    assert (await api.get(f"{PATH}/{number}"))["number"] == number


async def test_a_letter_stays_while_the_queue_is_away(platform: Any, api: Any) -> None:
    item = sample_error("s", await api.project())
    (number,) = await bury(platform, encode(item))

    async def away(items: Any) -> None:
        raise QueueUnavailable("the queue's file is locked")

    put, platform.queue.put = platform.queue.put, away
    status, _, message = await api.refused("POST", f"{PATH}/{number}/replay")
    assert (status, "replay it again" in message) == (503, True)
    assert (await api.get(f"{PATH}/{number}"))["text"].encode() == encode(item)
    platform.queue.put = put
    await api.post(f"{PATH}/{number}/replay", status=202)


async def test_a_letter_is_thrown_away(platform: Any, api: Any) -> None:
    (number,) = await bury(platform, JUNK)
    assert (await api.send("DELETE", f"{PATH}/{number}")).status_code == 204
    assert (await api.refused("DELETE", f"{PATH}/{number}"))[:2] == (404, "NOT_FOUND")


@pytest.mark.parametrize("number", ["0", "-1", "7", str(2**63 - 1), str(2**63), "9" * 40, "x", "1.5", "%00"])
async def test_a_number_that_no_letter_has_is_a_404(api: Any, number: str) -> None:
    assert (await api.refused("GET", f"{PATH}/{number}"))[0] == 404
    assert (await api.refused("POST", f"{PATH}/{number}/replay"))[0] in (404, 405)
    assert (await api.refused("DELETE", f"{PATH}/{number}"))[0] == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "before=0", "before=x", f"before={2**63}"])
async def test_bad_paging_of_letters_names_the_parameter(api: Any, query: str) -> None:
    status, _, message = await api.refused("GET", f"{PATH}?{query}")
    assert (status, f"`{query.partition('=')[0]}`" in message) == (422, True)


async def test_letters_are_the_operators(platform: Any, api: Any) -> None:
    """They belong to no project: whoever is bound to one, and every other organization, sees none."""
    (number,) = await bury(platform, JUNK)
    project_id = await api.project()
    for key in (
        await platform.key(project_id=project_id),
        await platform.key("client", project_id=project_id),
    ):
        for method, path in (
            ("GET", PATH),
            ("GET", f"{PATH}/{number}"),
            ("POST", f"{PATH}/{number}/replay"),
            ("DELETE", f"{PATH}/{number}"),
        ):
            assert (await key.refused(method, path))[:2] == (403, "FORBIDDEN")
    service = platform.service()
    assert (await service.get(PATH))["count"] == 1
    assert (await service.refused("GET", "/projects"))[:2] == (403, "FORBIDDEN")
    assert (await service.send("DELETE", f"{PATH}/{number}")).status_code == 204
