"""Roles as processes on a real Redis and PostgreSQL: what they tell operators, and how they begin and end."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.e2e.waiting import eventually
from tests.integration.serving.collector import Collector, collector
from voicethere.adapters.queue.redis_stream import RedisErrorQueue
from voicethere.testing.distributed import Distributed, distributed_platform
from voicethere.testing.platform_process import Operator
from voicethere.testing.ports import free_port
from voicethere.testing.queue import sample_error
from voicethere.testing.role_process import Role, command

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def traces() -> Iterator[Collector]:
    with collector() as collected:
        yield collected


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(traces: Collector) -> AsyncIterator[Distributed]:
    settings = {"otel_endpoint": traces.endpoint, "retention_seconds": 1}
    async with distributed_platform(sessions=1, workers=1, runners=1, settings=settings) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


async def ready(http: httpx.AsyncClient, role: Role) -> dict[str, Any]:
    answer = await http.get(role.said["ops_url"] + "/readyz")
    report: dict[str, Any] = answer.json()
    assert (answer.status_code == 200) is report["ready"]
    return report


async def missing(http: httpx.AsyncClient, role: Role) -> set[str]:
    return {name for name, words in (await ready(http, role))["checks"].items() if words != "ok"}


async def metric(http: httpx.AsyncClient, role: Role, name: str) -> float:
    text = (await http.get(role.said["ops_url"] + "/metrics")).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def log_lines(role: Role) -> list[dict[str, Any]]:
    whole, _, _ = Path(role.log_file).read_text().rpartition("\n")  # the last one may be half written
    return [json.loads(line) for line in whole.splitlines()]


async def test_every_role_is_ready_and_says_of_what(platform: Distributed, http: httpx.AsyncClient) -> None:
    wanted = {
        "control": {"role", "database", "queue", "bundles"},
        "sessions": {"role", "database", "queue", "relay"},
        "worker": {"role", "database", "queue"},
        "runner": {"role", "queue", "relay", "bundles"},
    }
    for role in platform.roles:
        report = await ready(http, role)
        assert set(report["checks"]) == wanted[role.kind]
        assert set(report["checks"].values()) == {"ok"}
        assert (report["role"], report["instance"]) == (role.kind, role.said["instance"])
        alive = await http.get(role.said["ops_url"] + "/healthz")
        assert (alive.status_code, alive.json()["alive"]) == (200, True)


async def test_the_ops_endpoint_is_not_on_the_public_port(
    platform: Distributed, http: httpx.AsyncClient
) -> None:
    for path in ("/metrics", "/readyz", "/healthz"):
        assert (await http.get(platform.session_service.base_url + path)).status_code == 404


async def test_a_database_that_hangs_is_named_by_those_who_need_it(
    platform: Distributed, http: httpx.AsyncClient
) -> None:
    platform.postgres.pause()
    try:
        for role in platform.roles:
            await eventually(
                f"what {role.name} lacks",
                lambda role=role: missing(http, role),
                lambda lacking, role=role: lacking == (set() if role.kind == "runner" else {"database"}),
            )
            assert (await http.get(role.said["ops_url"] + "/healthz")).status_code == 200
    finally:
        platform.postgres.resume()
    for role in platform.roles:
        await eventually(
            f"{role.name} ready again", lambda role=role: missing(http, role), lambda lacks: not lacks
        )


async def test_a_redis_that_is_gone_is_named_by_everybody(
    platform: Distributed, http: httpx.AsyncClient
) -> None:
    await platform.redis.kill()
    for role in platform.roles:
        lacks = {"queue", "relay"} if role.kind in ("sessions", "runner") else {"queue"}
        await eventually(
            f"what {role.name} lacks",
            lambda role=role: missing(http, role),
            lambda lacking, lacks=lacks: lacking == lacks,
        )
    await platform.redis.start()
    for role in platform.roles:
        await eventually(
            f"{role.name} ready again", lambda role=role: missing(http, role), lambda lacks: not lacks
        )


async def test_numbers_traces_and_logs_of_a_request_and_its_job(
    platform: Distributed, http: httpx.AsyncClient, traces: Collector
) -> None:
    service = platform.sessions[0]
    async with Operator(platform.control_plane) as operator:
        project = (await operator.ask("POST", "/projects", json={"name": "not deployed"}))["id"]
    started = await http.post(
        f"{service.said['base_url']}/v1/sessions",
        json={"project_id": project},
        headers={"authorization": f"Bearer {platform.api_key}", "x-request-id": "the-request-of-the-test"},
    )
    session_id = started.json()["session_id"]

    async def state() -> dict[str, Any]:
        answer = await http.get(
            f"{service.said['base_url']}/v1/sessions/{session_id}",
            headers={"authorization": f"Bearer {platform.api_key}"},
        )
        return dict(answer.json())

    await eventually("the job's failure", state, lambda seen: seen["status"] == "failed")

    for number in (
        'voicethere_http_requests_total{method="POST",route="/v1/sessions"',
        # A job counts once its error is queued, some time after its failure can be seen.
        'voicethere_provisioning_seconds_count{outcome="NOT_DEPLOYED"}',
        # A term that begins while Redis comes back may have to begin again: the roll's call needs it, too.
        "voicethere_runners ",
        "voicethere_coordinator ",
    ):
        await eventually(
            number, lambda number=number: metric(http, service, number), lambda found: found == 1
        )
    worker = platform.workers[0]
    await eventually(
        "the stored error in the worker's numbers",
        lambda: metric(http, worker, 'voicethere_worker_errors_total{code="PROVISIONING_FAILED"'),
        lambda number: number == 1,
    )
    await eventually(
        "an empty queue", lambda: metric(http, worker, "voicethere_queue_depth"), lambda depth: depth == 0
    )

    job = await asyncio.to_thread(traces.wait_for, "provision session", service="voicethere-sessions")
    assert job.attributes["voicethere.session_id"] == session_id
    assert job.attributes["voicethere.failure_code"] == "NOT_DEPLOYED"
    await asyncio.to_thread(traces.wait_for, "commit batch", service="voicethere-worker")
    await asyncio.to_thread(traces.wait_for, "POST request", service="voicethere-control")

    logs = log_lines(service)
    (request,) = [line for line in logs if line.get("request_id") == "the-request-of-the-test"]
    assert (request["event"], request["role"], request["instance"]) == (
        "request",
        "sessions",
        service.said["instance"],
    )
    polls = [line for line in logs if line.get("path") == f"/v1/sessions/{session_id}"]
    assert {line["session_id"] for line in polls} == {session_id}
    assert platform.api_key not in Path(service.log_file).read_text()


async def test_what_nobody_can_store_is_counted_and_seen(
    platform: Distributed, http: httpx.AsyncClient
) -> None:
    queue = RedisErrorQueue(platform.redis.url)
    await queue.put([sample_error("of-a-session-that-never-was")])
    await queue.aclose()
    await eventually(
        "the dead letter",
        lambda: metric(http, platform.workers[0], 'voicethere_worker_items_total{became="dead_letter"}'),
        lambda number: number == 1,
    )


async def test_a_service_serves_on_while_load_balancers_notice(
    platform: Distributed, http: httpx.AsyncClient
) -> None:
    service = await platform.add("sessions", "--unready-seconds=600")
    service.send_signal(signal.SIGTERM)
    await eventually(
        "its word that it leaves", lambda: missing(http, service), lambda lacks: lacks == {"role"}
    )
    assert (await http.get(service.said["base_url"] + "/openapi.json")).status_code == 200
    # Nobody waits ten minutes for one who is in a hurry.
    assert await service.end() == 0
    with pytest.raises(httpx.ConnectError):
        await http.get(service.said["base_url"] + "/openapi.json")


async def test_a_role_that_waits_for_its_database_says_so_and_serves_when_it_is_there(
    platform: Distributed, http: httpx.AsyncClient
) -> None:
    port = free_port()
    await platform.postgres.stop()
    starting = asyncio.create_task(platform.add("worker", f"--ops-port={port}"))

    async def words() -> str:
        try:
            answer = await http.get(f"http://127.0.0.1:{port}/readyz")
        except httpx.TransportError:
            return ""
        assert answer.status_code == 503
        return str(answer.json()["checks"]["role"])

    await eventually("what it waits for", words, lambda said: said == "the database has not answered yet")
    assert not starting.done()
    await platform.postgres.start()
    worker = await starting
    await eventually("the worker ready", lambda: missing(http, worker), lambda lacks: not lacks)
    assert await worker.end() == 0


async def test_a_role_that_waits_for_its_database_can_be_ended(platform: Distributed) -> None:
    await platform.postgres.stop()
    try:
        home = platform.folder / "waiting"
        home.mkdir()
        process = await asyncio.create_subprocess_exec(
            *command("serve", "worker", f"--config={platform.config_file}"),
            f"--data-dir={home}",
            f"--log-file={home}/log",
            stderr=asyncio.subprocess.PIPE,
        )

        async def log() -> str:
            file = home / "log"
            return file.read_text() if file.exists() else ""

        await eventually("its waiting", log, lambda text: "database_waited_for" in text)
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(process.communicate(), 20)
        assert (process.returncode, said) == (0, b"")
    finally:
        await platform.postgres.start()


async def test_a_port_that_is_taken_is_named(platform: Distributed) -> None:
    taken = platform.sessions[0].port
    process = await asyncio.create_subprocess_exec(
        *command("serve", "sessions", f"--config={platform.config_file}", f"--port={taken}"),
        f"--data-dir={platform.folder}/taken",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert said.decode().strip().splitlines()[-1].startswith("Error: cannot serve: ")
    assert f"cannot listen on 127.0.0.1:{taken}" in said.decode()
