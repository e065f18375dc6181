"""Session errors, sessions, settings, environment, secrets and keys over the API, on a real store."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import msgspec
import pytest

from voicethere.adapters.store import StoreUnavailable
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import ErrorRecord
from voicethere.errors.times import iso_from_epoch
from voicethere.testing.queue import sample_error
from voicethere.wire.http import HttpErrorCode
from voicethere.wire.queue import ErrorItem, SuppressedItem

METHODS = ("get", "post", "put", "patch", "delete")
DEFAULT_SETTINGS = {
    "error_message": "Sorry, something went wrong.",
    "idle_timeout_enabled": True,
    "idle_timeout_seconds": 30,
    "data_only_idle_timeout_seconds": 30,
    "idle_timeout_voice_activity": True,
    "idle_timeout_dc_inbound": True,
    "stt_enabled": True,
    "conversation_history_enabled": True,
    "client_stack_traces": True,
}


def error_record(project_id: str, session_id: str, *, at: float) -> ErrorRecord:
    return sample_error(session_id, project_id, occurred_at=iso_from_epoch(at)).record


async def start_session(platform: Any, project_id: str) -> str:
    session_id = f"s-{uuid.uuid4().hex}"
    await platform.store.create_session(
        session_id=session_id,
        project_id=project_id,
        build_id=None,
        customer_context=None,
        idempotency_key=None,
    )
    return session_id


async def stored_errors(platform: Any, project_id: str, count: int, session_id: str) -> list[str]:
    start = time.time() - 3600
    records = [error_record(project_id, session_id, at=start + n) for n in range(count)]
    await platform.store.commit_batch([ErrorItem(record=record) for record in records], [])
    return [record.id for record in records]


# ------------------------------------------------------------------ session errors


async def test_project_errors_are_newest_first_in_pages_of_twenty(platform: Any, api: Any) -> None:
    project_id = await api.project()
    session_id = await start_session(platform, project_id)
    ids = await stored_errors(platform, project_id, 45, session_id)
    newest = ids[::-1]
    path = f"/projects/{project_id}/session-errors"
    page = await api.get(path)
    assert page["project_id"] == project_id
    assert [row["id"] for row in page["errors"]] == newest[:20]
    assert set(page["errors"][0]) == {
        "id",
        "orchestrator_session_id",
        "source",
        "code",
        "message",
        "stack_trace",
        "created_at",
        "client_message",
        "build_id",
        "recoverable",
        "customer_context",
        "occurred_at",
        "details",
    }
    seen = [row["id"] for row in page["errors"]]
    while "next_cursor" in page:
        page = await api.get(path, cursor=page["next_cursor"])
        seen += [row["id"] for row in page["errors"]]
    assert seen == newest
    assert len((await api.get(path, limit=45))["errors"]) == 45


async def test_one_sessions_errors_are_oldest_first(platform: Any, api: Any) -> None:
    project_id = await api.project()
    first, second = await start_session(platform, project_id), await start_session(platform, project_id)
    ids = await stored_errors(platform, project_id, 3, first)
    await stored_errors(platform, project_id, 2, second)
    answer = await api.get(f"/projects/{project_id}/sessions/{first}/errors")
    assert (answer["project_id"], answer["orchestrator_session_id"]) == (project_id, first)
    assert [row["id"] for row in answer["errors"]] == ids
    other = await api.project("Other")
    for path in (f"/projects/{other}/sessions/{first}/errors", f"/projects/{project_id}/sessions/no/errors"):
        assert (await api.refused("GET", path))[:2] == (404, "NOT_FOUND")
    junk = f"/projects/{project_id}/sessions/%00%1b/errors"
    assert (await api.refused("GET", junk))[0] == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.5", "limit"),
        ("cursor=junk", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "x" * 2000, "cursor"),
    ],
)
async def test_bad_paging_names_the_parameter(api: Any, query: str, field: str) -> None:
    project_id = await api.project()
    status, code, message = await api.refused("GET", f"/projects/{project_id}/session-errors?{query}")
    assert (status, code) == (422, HttpErrorCode.VALIDATION_FAILED)
    assert f"`{field}`" in message


async def test_a_service_reports_an_error_through_the_queue(platform: Any, api: Any) -> None:
    project_id = await api.project()
    session_id = await start_session(platform, project_id)
    record = error_record(project_id, session_id, at=1_781_870_400.0)
    path = f"/projects/{project_id}/session-errors"
    body = msgspec.to_builtins(record)
    assert (await api.refused("POST", path, json=body))[:2] == (403, "FORBIDDEN")
    service = platform.service()
    assert await service.post(path, body, 202) == {"id": record.id}
    (delivery,) = await platform.queue.receive(limit=10, wait_seconds=5)
    assert delivery.item == ErrorItem(record=record)
    wrong = [
        ({**body, "project_id": str(uuid.uuid4())}, 422, "`project_id`"),
        ({**body, "code": "MADE_UP"}, 422, "`code`"),
        ({**body, "occurred_at": "yesterday"}, 422, "`occurred_at`"),
        ({**body, "id": ""}, 422, "`id`"),
        ({**body, "session_id": "unknown"}, 404, "session"),
        ({**body, "recoverable": "no"}, 422, "`recoverable`"),
        ({**body, "stack": "x" * 300_000}, 413, "262144"),
    ]
    for given, expected, words in wrong:
        status, _, message = await service.refused("POST", path, json=given)
        assert (status, words in message) == (expected, True), message
    assert await platform.queue.depth() == 1


async def test_a_queue_that_is_away_is_a_503_that_says_what_to_do(platform: Any, api: Any) -> None:
    project_id = await api.project()
    session_id = await start_session(platform, project_id)
    body = msgspec.to_builtins(error_record(project_id, session_id, at=1_781_870_400.0))
    await platform.queue.aclose()
    path = f"/projects/{project_id}/session-errors"
    status, code, message = await platform.service().refused("POST", path, json=body)
    assert (status, code) == (503, "UNAVAILABLE")
    assert "nothing was accepted" in message
    assert "send it again" in message
    answer = await platform.service().send("POST", path, json=body)
    assert answer.headers["retry-after"] == "1"


async def test_an_error_is_accepted_while_the_database_is_away(
    platform: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what the queue is for: the worker checks the session once the database is back."""

    async def away(session_id: str) -> None:
        raise StoreUnavailable("the database is locked")

    project_id = await api.project()
    record = error_record(project_id, await start_session(platform, project_id), at=1_781_870_400.0)
    monkeypatch.setattr(platform.store, "get_session", away)
    path = f"/projects/{project_id}/session-errors"
    assert await platform.service().post(path, msgspec.to_builtins(record), 202) == {"id": record.id}
    (delivery,) = await platform.queue.receive(limit=10, wait_seconds=5)
    assert delivery.item == ErrorItem(record=record)


async def test_what_was_suppressed_is_told_on_the_first_page(platform: Any, api: Any) -> None:
    project_id, other = await api.project(), await api.project("Other")
    await stored_errors(platform, project_id, 3, await start_session(platform, project_id))
    path = f"/projects/{project_id}/session-errors"
    assert "suppressed" not in await api.get(path)
    items = [
        suppressed(project_id, SessionErrorCode.RUNNER_INTERNAL, 7, 0, 9),
        suppressed(project_id, SessionErrorCode.AGENT_HANDLER_FAILED, 1000, 5, 60),
        suppressed(project_id, SessionErrorCode.AGENT_HANDLER_FAILED, 234, 1, 4),
    ]
    await platform.store.commit_batch(items, [])
    page = await api.get(path, limit=2)
    assert page["suppressed"] == [
        {
            "code": "AGENT_HANDLER_FAILED",
            "count": 1234,
            "first_at": items[2].first_at,
            "last_at": items[1].last_at,
        },
        {
            "code": "RUNNER_INTERNAL",
            "count": 7,
            "first_at": items[0].first_at,
            "last_at": items[0].last_at,
        },
    ]
    assert "suppressed" not in await api.get(path, cursor=page["next_cursor"])
    assert "suppressed" not in await api.get(f"/projects/{other}/session-errors")


def suppressed(
    project_id: str, code: SessionErrorCode, count: int, first: float, last: float
) -> SuppressedItem:
    """`first` and `last` in seconds after a moment an hour ago."""
    start = time.time() - 3600
    return SuppressedItem(
        id=str(uuid.uuid4()),
        project_id=project_id,
        code=code,
        count=count,
        first_at=iso_from_epoch(start + first),
        last_at=iso_from_epoch(start + last),
    )


# ------------------------------------------------------------------ sessions


async def test_sessions_are_listed_between_times(platform: Any, api: Any) -> None:
    project_id = await api.project()
    ids = [await start_session(platform, project_id) for _ in range(3)]
    path = f"/projects/{project_id}/sessions"
    answer = await api.get(path)
    assert set(answer) == {"sessions", "start", "end", "count"}
    assert {row["id"] for row in answer["sessions"]} == set(ids)
    assert (answer["count"], answer["start"], answer["end"]) == (3, None, None)
    assert (await api.get(path, end="2001-01-01T00:00:00+01:00"))["end"] == "2000-12-31T23:00:00.000Z"
    assert (await api.get(path, start="2001-01-01T00:00:00Z", limit=2))["count"] == 2
    row = await api.get(f"{path}/{ids[0]}")
    assert (row["orchestrator_session_id"], row["status"]) == (ids[0], "active")
    assert (await api.refused("GET", f"{path}/{uuid.uuid4().hex}"))[0] == 404
    for query, field in (
        ("start=yesterday", "start"),
        ("start=2026-01-01T00:00:00", "start"),
        ("end=9999-12-31T23:59:59-23:00", "end"),
        ("start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "start"),
    ):
        status, _, message = await api.refused("GET", f"{path}?{query}")
        assert (status, f"`{field}`" in message) == (422, True), query


# ------------------------------------------------------------------ settings


async def test_session_settings_have_the_contracts_keys_and_defaults(api: Any) -> None:
    project_id = await api.project()
    path = f"/projects/{project_id}/session-settings"
    assert await api.get(path) == {"project_id": project_id, "settings": DEFAULT_SETTINGS}
    for key, value in (
        ("error_message", ""),
        ("error_message", "é" * 500),
        ("idle_timeout_enabled", False),
        ("idle_timeout_seconds", 120),
        ("data_only_idle_timeout_seconds", 31),
        ("client_stack_traces", False),
    ):
        response = await api.send("PATCH", path, json={"key": key, "value": value})
        assert (response.status_code, response.json()["settings"][key]) == (200, value)
    assert (await api.get(path))["settings"]["idle_timeout_seconds"] == 120


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("no_such_key", 1, "idle_timeout_seconds"),
        ("error_message", "x" * 501, "at most 500 characters"),
        ("error_message", 5, "at most 500 characters"),
        ("error_message", None, "at most 500 characters"),
        ("error_message", "a\x07b", "U+0007"),
        ("idle_timeout_seconds", 29, "from 30 to 120"),
        ("idle_timeout_seconds", 121, "from 30 to 120"),
        ("idle_timeout_seconds", "60", "an integer from 30 to 120"),
        ("idle_timeout_seconds", True, "an integer from 30 to 120"),
        ("idle_timeout_seconds", 60.5, "an integer from 30 to 120"),
        ("idle_timeout_seconds", 10**30, "an integer from 30 to 120"),
        ("data_only_idle_timeout_seconds", [30], "an integer from 30 to 120"),
        ("idle_timeout_enabled", 1, "true or false"),
        ("idle_timeout_enabled", "true", "true or false"),
        ("idle_timeout_enabled", {"a": "x" * 1000}, "true or false"),
    ],
)
async def test_a_bad_session_setting_names_key_and_range(api: Any, key: str, value: Any, words: str) -> None:
    path = f"/projects/{await api.project()}/session-settings"
    status, code, message = await api.refused("PATCH", path, json={"key": key, "value": value})
    assert (status, code) == (422, "VALIDATION_FAILED")
    assert key in message
    assert words in message
    assert len(message) < 600
    assert (await api.get(path))["settings"] == DEFAULT_SETTINGS


async def test_project_settings(api: Any) -> None:
    path = f"/projects/{await api.project()}/settings"
    assert (await api.get(path))["settings"] == {
        "mode": "voice",
        "client_speak_enabled": False,
        "agent_crash_policy": "disconnect_all",
        "shared_child_per_session": False,
        "warm_pool_enabled": False,
        "retention_days": 0,
        "retention_errors": 0,
        "monthly_session_limit": 0,
        "allowed_origins": [],
        "require_issued_conversations": False,
    }
    changed = await api.send("PATCH", path, json={"key": "mode", "value": "voice+data"})
    assert changed.json()["settings"]["mode"] == "voice+data"
    status, _, message = await api.refused("PATCH", path, json={"key": "mode", "value": "video"})
    assert (status, '"voice", "data", "voice+data"' in message) == (422, True)
    changed = await api.send("PATCH", path, json={"key": "agent_crash_policy", "value": "restart_child"})
    assert changed.json()["settings"]["agent_crash_policy"] == "restart_child"
    status, _, message = await api.refused("PATCH", path, json={"key": "agent_crash_policy", "value": "no"})
    assert (status, '"disconnect_all", "restart_child"' in message) == (422, True)
    status, _, message = await api.refused(
        "PATCH", path, json={"key": "shared_child_per_session", "value": 1}
    )
    assert (status, "true or false" in message) == (422, True)


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("warm_pool_enabled", True, True),
        ("retention_days", 3650, 3650),
        ("retention_errors", 100_000_000, 100_000_000),
        ("monthly_session_limit", 0, 0),
        ("allowed_origins", [], []),
        ("require_issued_conversations", True, True),
        (
            "allowed_origins",
            [
                " HTTPS://Shop.Example:443/",
                "http://localhost:3000",
                "https://shop.example",
                "http://[::1]:80",
            ],
            ["https://shop.example", "http://localhost:3000", "http://[::1]"],
        ),
    ],
)
async def test_project_settings_of_many_kinds(
    platform: Any, api: Any, key: str, value: Any, kept: Any
) -> None:
    project_id = await api.project()
    response = await api.send("PATCH", f"/projects/{project_id}/settings", json={"key": key, "value": value})
    assert (response.status_code, response.json()["settings"][key]) == (200, kept)
    assert getattr(await platform.store.get_project_settings(project_id), key) == kept


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("warm_pool_enabled", 1, "true or false"),
        ("retention_days", 3651, "an integer from 0 to 3650"),
        ("retention_days", -1, "an integer from 0 to 3650"),
        ("retention_errors", 1.5, "an integer from 0 to 100000000"),
        ("monthly_session_limit", -1, "an integer from 0 to 1000000000"),
        ("allowed_origins", "https://shop.example", "a list of at most 50 origins"),
        ("allowed_origins", [7], "a list of at most 50 origins"),
        ("allowed_origins", ["*"], "leave the list empty"),
        ("allowed_origins", ["shop.example"], "https://shop.example"),
        ("allowed_origins", ["https://shop.example/path"], "is no origin"),
        ("allowed_origins", ["https://a:b@shop.example"], "is no origin"),
        ("allowed_origins", ["https://shop.example:0"], "is no origin"),
        ("allowed_origins", ["https://shop.example:"], "is no origin"),
        ("allowed_origins", ["https://shop.example:99999"], "is no origin"),
        ("allowed_origins", ["https://sh op.example"], "is no origin"),
        ("allowed_origins", ["https://shöp.example"], "is no origin"),
        ("allowed_origins", ["https://[::1"], "is no origin"),
        ("allowed_origins", ["https://"], "is no origin"),
        ("allowed_origins", ["null"], "is no origin"),
        ("allowed_origins", ["ftp://shop.example"], "is no origin"),
        ("allowed_origins", ["https://" + "x" * 400], "is no origin"),
        ("allowed_origins", [f"https://s{n}.example" for n in range(51)], "at most 50"),
    ],
)
async def test_a_bad_project_setting_names_key_and_range(api: Any, key: str, value: Any, words: str) -> None:
    path = f"/projects/{await api.project()}/settings"
    before = await api.get(path)
    status, code, message = await api.refused("PATCH", path, json={"key": key, "value": value})
    assert (status, code) == (422, "VALIDATION_FAILED")
    assert f"`{key}`" in message
    assert words in message
    assert await api.get(path) == before


# ------------------------------------------------------------------ environment and secrets


async def test_variables_are_set_listed_and_removed(api: Any) -> None:
    project_id = await api.project()
    path = f"/projects/{project_id}/environment"
    response = await api.send("PUT", f"{path}/AGENT_REGION", json={"value": "eu"})
    assert response.json() == {"project_id": project_id, "environment": {"AGENT_REGION": "eu"}}
    assert await api.get(path) == response.json()
    assert (await api.send("DELETE", f"{path}/AGENT_REGION")).status_code == 204
    assert (await api.refused("DELETE", f"{path}/AGENT_REGION"))[0] == 404
    reserved = ("AGENT_CUSTOMER_CONTEXT", "AGENT_CRASH_TTS_MESSAGE")
    for key in ("REGION", "agent_region", "AGENT_", "AGENT_" + "X" * 200, *reserved):
        status, _, message = await api.refused("PUT", f"{path}/{key}", json={"value": "x"})
        assert (status, key[:50] in message) == (422, True)
    for value in ("x" * 8193, "a\0b"):
        assert (await api.refused("PUT", f"{path}/AGENT_A", json={"value": value}))[0] == 422


async def test_secrets_come_back_masked_only(platform: Any, api: Any) -> None:
    project_id = await api.project()
    path = f"/projects/{project_id}/secrets"
    secret = "sk-aaaabbbbccccddddeeeeffff"
    created = await api.send("POST", path, json={"name": "OPENAI_API_KEY", "value": secret})
    await api.post(path, {"name": "PIN", "value": "1234"})
    listed = await api.get(path)
    assert listed["secrets"] == [
        {"name": "OPENAI_API_KEY", "masked": "••••ffff"},
        {"name": "PIN", "masked": "••••"},
    ]
    assert secret not in created.text + str(listed)
    assert (await platform.store.get_secrets(project_id))["OPENAI_API_KEY"] == secret
    for name in ("lower", "LD_PRELOAD", "PYTHONPATH", "SESSION_ID", "AGENT_CRASH_TTS_MESSAGE", "A-B", ""):
        assert (await api.refused("POST", path, json={"name": name, "value": "x"}))[0] == 422
    assert (await api.refused("POST", path, json={"name": "EMPTY", "value": ""}))[0] == 422
    await api.post(path, {"name": "AGENT_TOKEN", "value": "t"})
    clash = await api.refused("PUT", f"/projects/{project_id}/environment/AGENT_TOKEN", json={"value": "x"})
    assert clash[:2] == (409, "CONFLICT")
    assert (await api.send("DELETE", f"{path}/PIN")).status_code == 204
    assert (await api.refused("DELETE", f"{path}/PIN"))[0] == 404


# ------------------------------------------------------------------ keys


async def test_a_key_is_shown_once_works_and_is_revoked(platform: Any, api: Any) -> None:
    project_id = await api.project()
    created = await api.post("/api-keys", {"name": "ci", "expires_in_days": 1})
    key = created.pop("key")
    assert key.startswith("vth_")
    assert created["prefix"] in key
    assert created["expires_at"] is not None
    listed = (await api.get("/api-keys"))["api_keys"]
    assert created["id"] in [entry["id"] for entry in listed]
    assert key not in str(listed)
    other = type(api)(api.http, key)
    assert [p["id"] for p in (await other.get("/projects"))["projects"]] == [project_id]
    assert (await other.refused("DELETE", f"/api-keys/{created['id']}"))[:2] == (409, "CONFLICT")
    assert (await api.send("DELETE", f"/api-keys/{created['id']}")).status_code == 204
    assert (await other.refused("GET", "/projects"))[:2] == (401, "UNAUTHORIZED")
    assert (await api.refused("DELETE", f"/api-keys/{uuid.uuid4()}"))[0] == 404


async def test_client_keys_belong_to_one_project(platform: Any, api: Any) -> None:
    project_id = await api.project()
    assert (await api.refused("POST", "/api-keys", json={"name": "web", "kind": "client"}))[0] == 422
    body = {"name": "web", "kind": "client", "project_id": project_id}
    created = await api.post("/api-keys", body)
    assert created["key"].startswith("vthc_")
    assert created["project_id"] == project_id
    unknown = {**body, "project_id": str(uuid.uuid4())}
    assert (await api.refused("POST", "/api-keys", json=unknown))[0] == 404
    bound = await platform.key(project_id=project_id)
    assert (await bound.refused("POST", "/api-keys", json={"name": "more"}))[0] == 403


@pytest.mark.states("sem-chat/keys/public-apis")
async def test_a_client_key_opens_no_route_of_the_control_plane(platform: Any, api: Any) -> None:
    project_id = await api.project()
    published = await platform.key("client", project_id=project_id)
    paths = (await platform.http.get("/openapi.json")).json()["paths"]
    tried = 0
    for path, item in paths.items():
        for method in set(item) & set(METHODS):
            filled = path.removeprefix("/api/v1")
            for parameter in item[method].get("parameters", []):
                value = "1" if parameter["schema"].get("type") == "integer" else project_id
                filled = filled.replace(f"{{{parameter['name']}}}", value)
            status, code, _ = await published.refused(method.upper(), filled)
            assert (status, code) == (403, "FORBIDDEN"), (method, path)
            tried += 1
    assert tried > 20


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": " "}, "name"),
        ({"name": "k", "kind": "root"}, "kind"),
        ({"name": "k", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "k", "expires_in_days": "7"}, "expires_in_days"),
    ],
)
async def test_bad_key_bodies_name_the_field(api: Any, body: Any, field: str) -> None:
    status, _, message = await api.refused("POST", "/api-keys", json=body)
    assert (status, f"`{field}`" in message) == (422, True)


async def test_every_route_is_documented_with_its_errors(platform: Any) -> None:
    document = (await platform.http.get("/openapi.json")).json()
    paths = document["paths"]
    for path in (
        "/api/v1/projects/{project_id}/session-errors",
        "/api/v1/projects/{project_id}/sessions/{session_id}/errors",
        "/api/v1/projects/{project_id}/session-settings",
        "/api/v1/projects/{project_id}/promote",
        "/api/v1/deployments",
        "/api/v1/api-keys",
    ):
        assert path in paths
    for path, item in paths.items():
        for method in METHODS:
            if method not in item:
                continue
            answers = item[method]["responses"]
            errors = [status for status in answers if status >= "400"]
            assert {"401", "403", "404", "422", "500", "503"} <= set(errors), (path, method)
            for status in errors:
                schema = answers[status]["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("HttpErrorBody"), (path, method, status)
    operations = [
        item[method]["operationId"] for item in paths.values() for method in item if method in METHODS
    ]
    assert len(set(operations)) == len(operations)
    assert {"listProjects", "projectErrors", "deploy"} <= set(operations)
    upload = paths["/api/v1/projects/{project_id}/builds"]["post"]["requestBody"]["content"]
    assert list(upload) == ["multipart/form-data"]


async def test_concurrent_projects_of_one_name_all_get_a_slug(api: Any) -> None:
    created = await asyncio.gather(*(api.post("/projects", {"name": "Same"}) for _ in range(6)))
    assert len({project["slug"] for project in created}) == 6
