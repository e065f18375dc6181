"""Metrics: what is exported of the roles' numbers, and that no caller can make series grow."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from voicethere.adapters.http.request_ids import SeenRequest
from voicethere.adapters.store import CommittedBatch
from voicethere.adapters.telemetry.loop_lag import LoopLag
from voicethere.adapters.telemetry.metrics import Metrics
from voicethere.cli import ops_metrics
from voicethere.core.ports import Delivery
from voicethere.roles.runner.gauges import RunnerGauges
from voicethere.roles.sessions.provisioning import JobDone
from voicethere.roles.sessions.worker import WorkedBatch
from voicethere.testing.queue import InMemoryErrorQueue, sample_error
from voicethere.wire.queue import ErrorItem
from voicethere.wire.relay import CapacityNow
from voicethere.wire.session_api import FailureCode


async def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """`(name, label values …)` to number, of our own metrics."""
    families = text_string_to_metric_families((await metrics.text()).decode())
    return {
        (sample.name.removeprefix("voicethere_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("voicethere_")
    }


async def test_every_process_says_who_it_is_and_how_late_its_loop_is() -> None:
    metrics, lag = Metrics(), LoopLag()
    observe = ops_metrics.measure_process(metrics, lag, role="worker")
    observe(0.02)
    found = await samples(metrics)
    assert any(key[0] == "build_info" and "worker" in key for key in found)
    assert found["event_loop_lag_seconds_count",] == 1
    assert "process_resident_memory_bytes" in (await metrics.text()).decode()


async def test_requests_are_counted_by_route() -> None:
    metrics = Metrics()
    seen = ops_metrics.measure_http(metrics)
    for status in (200, 200, 404):
        seen(SeenRequest("GET", "/v1/sessions/{session_id}", status, 0.01))
    seen(SeenRequest("WEBSOCKET", "/v1/signaling", 101, 600.0))
    found = await samples(metrics)
    assert found["http_requests_total", "GET", "/v1/sessions/{session_id}", "200"] == 2
    assert found["http_requests_total", "GET", "/v1/sessions/{session_id}", "404"] == 1
    assert found["http_requests_total", "WEBSOCKET", "/v1/signaling", "101"] == 1
    assert found["http_request_seconds_count", "GET", "/v1/sessions/{session_id}"] == 3
    assert ("http_request_seconds_count", "WEBSOCKET", "/v1/signaling") not in found


async def test_committed_batches_are_counted_by_what_became_of_them() -> None:
    metrics = Metrics()
    worked = ops_metrics.measure_worker(metrics)
    record = sample_error("e-1").record
    deliveries = [Delivery("1", b"", ErrorItem(record=record)), Delivery("2", b"junk", None, "unreadable")]
    worked(WorkedBatch(deliveries, CommittedBatch(inserted=1, duplicates=0, ended=0, dead=1), 0.003))
    found = await samples(metrics)
    assert found["worker_items_total", "row"] == 1
    assert found["worker_items_total", "dead_letter"] == 1
    assert found["worker_items_total", "duplicate"] == 0
    assert found["worker_errors_total", record.code.value, record.source.value] == 1
    assert found["worker_batch_seconds_count",] == 1
    assert found["error_to_row_seconds_count",] == 1


async def test_the_queue_is_asked_when_somebody_scrapes() -> None:
    metrics, queue = Metrics(), InMemoryErrorQueue()
    ops_metrics.measure_queue(metrics, queue)
    await queue.put([sample_error("e-1"), sample_error("e-2")])
    found = await samples(metrics)
    assert found["queue_depth",] == 2
    assert found["queue_oldest_seconds",] >= 0


async def test_what_is_not_known_is_left_out_and_takes_nothing_with_it() -> None:
    metrics = Metrics()

    async def breaks() -> None:
        raise OSError("away")

    def fails() -> float:
        raise ZeroDivisionError

    metrics.refresh(breaks)
    metrics.gauge("unknown", "Not known.", lambda: None)
    metrics.gauge("broken", "Broken.", fails)
    metrics.gauge("known", "Known.", lambda: 3)
    assert await samples(metrics) == {("known",): 3}


async def test_a_name_is_taken_once() -> None:
    metrics = Metrics()
    metrics.gauge("a", "A.", lambda: 1)
    with pytest.raises(ValueError, match="is there already"):
        metrics.gauge("a", "Another.", lambda: 1)


class Service:
    coordinates = True
    sockets = 4
    ignored_signals: Mapping[str, int] = {"malformed": 3}
    capacity: CapacityNow | None = None


async def test_a_session_service_tells_what_the_coordinator_said() -> None:
    metrics, service = Metrics(), Service()
    ops_metrics.measure_service(metrics, service)
    found = await samples(metrics)
    assert (found["coordinator",], found["signaling_sockets",]) == (1, 4)
    assert found["signaling_ignored_total", "malformed"] == 3
    assert ("runners",) not in found
    service.capacity = CapacityNow(runners=3, capacity=30, free=2, waiting=5, mean_session_seconds=90.0)
    found = await samples(metrics)
    assert [
        found[name,] for name in ("runners", "sessions_capacity", "sessions_free", "sessions_waiting")
    ] == [
        3,
        30,
        2,
        5,
    ]


async def test_jobs_are_timed_by_outcome() -> None:
    metrics = Metrics()
    done = ops_metrics.measure_jobs(metrics)
    done(JobDone(0.1, None))
    done(JobDone(30.0, FailureCode.TIMEOUT))
    found = await samples(metrics)
    assert found["provisioning_seconds_count", "ready"] == 1
    assert found["provisioning_seconds_sum", "TIMEOUT"] == 30


async def test_a_runner_tells_its_numbers() -> None:
    metrics = Metrics()
    gauges = RunnerGauges(
        sessions=2,
        hosted=7,
        capacity=8,
        draining=True,
        children=3,
        warm_children=1,
        warm_taken=5,
        warm_lost=1,
        errors={"AGENT_HANDLER_FAILED": 7},
        queue_put_failures=0,
        refused={"CAPACITY_EXCEEDED": 2},
        ignored_signals={"too_many": 4},
    )
    ops_metrics.measure_runner(metrics, lambda: gauges)
    found = await samples(metrics)
    assert found["runner_sessions",] == 2
    assert found["runner_draining",] == 1
    assert found["runner_errors_total", "AGENT_HANDLER_FAILED"] == 7
    assert found["runner_refused_total", "CAPACITY_EXCEEDED"] == 2
    assert found["runner_signaling_ignored_total", "too_many"] == 4


async def test_sessions_are_counted_by_status() -> None:
    metrics = Metrics()

    async def count() -> dict[str, int]:
        return {"ready": 3, "waiting": 1}

    ops_metrics.measure_sessions(metrics, count)
    assert (await samples(metrics)) == {("sessions", "ready"): 3, ("sessions", "waiting"): 1}


async def test_no_label_is_called_after_something_that_has_ids() -> None:
    metrics = Metrics()
    ops_metrics.measure_process(metrics, LoopLag(), role="sessions")
    ops_metrics.measure_http(metrics)(SeenRequest("GET", "/", 200, 0.1))
    ops_metrics.measure_service(metrics, Service())
    text = (await metrics.text()).decode()
    labels = {
        label
        for group in re.findall(r"^voicethere_\w+\{([^}]*)\}", text, re.M)
        for label in re.findall(r"(\w+)=", group)
    }
    assert labels <= {"version", "role", "method", "route", "status", "le", "reason"}
