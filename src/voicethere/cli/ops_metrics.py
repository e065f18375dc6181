"""Which numbers of the roles become which metrics. The names here are what dashboards and alerts stand on.

No label holds an id of a session, a project or a runner: series stay few however much goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from voicethere import __version__
from voicethere.adapters.telemetry.loop_lag import LoopLag
from voicethere.adapters.telemetry.metrics import Metrics
from voicethere.cli.producer_queue import Producer
from voicethere.core.ports import ErrorQueuePort
from voicethere.errors.times import parse_iso
from voicethere.wire.queue import ErrorItem
from voicethere.wire.relay import CapacityNow

if TYPE_CHECKING:
    from voicethere.adapters.http.request_ids import SeenRequest
    from voicethere.roles.gateway.gateway import Gateway
    from voicethere.roles.runner.gauges import RunnerGauges
    from voicethere.roles.sessions.provisioning import JobDone
    from voicethere.roles.sessions.worker import WorkedBatch

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
_LATENCY_SECONDS = (0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)
_BATCH_ITEMS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
_PROVISIONING_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600, 3600)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class ServiceNumbers(Protocol):
    """What a session service can be asked."""

    @property
    def coordinates(self) -> bool:
        """Whether it is this one that coordinates."""

    @property
    def sockets(self) -> int:
        """Signaling sockets that are open here."""

    @property
    def ignored_signals(self) -> Mapping[str, int]:
        """Signaling messages that were ignored here, by reason."""

    @property
    def capacity(self) -> CapacityNow | None:
        """What the coordinator said last."""


def measure_process(metrics: Metrics, lag: LoopLag, *, role: str) -> Callable[[float], None]:
    """What every process has. Returns what hears of each sample of the loop's lag."""
    metrics.gauge(
        "build_info",
        "Always 1; the version and the role.",
        lambda: {(__version__, role): 1},
        labels=("version", "role"),
    )
    started = time.time()
    metrics.gauge("started_timestamp_seconds", "When this process began to serve.", lambda: started)
    metrics.gauge(
        "event_loop_lag_worst_seconds",
        "The latest that something began since the last scrape.",
        lag.take_worst,
    )
    return metrics.histogram(
        "event_loop_lag_seconds", "How late the event loop began what was due.", buckets=_LAG_SECONDS
    ).observe


def measure_http(metrics: Metrics) -> Callable[[SeenRequest], None]:
    """Requests by route. Returns what hears of each."""
    labels = ("method", "route")
    requests = metrics.counter(
        "http_requests", "HTTP requests and sockets, when they are over.", labels=(*labels, "status")
    )
    seconds = metrics.histogram(
        "http_request_seconds",
        "How long requests took; sockets are left out.",
        labels=labels,
        buckets=_REQUEST_SECONDS,
    )

    def seen(request: SeenRequest) -> None:
        requests.labels(request.method, request.route, str(request.status)).inc()
        if request.method != "WEBSOCKET":
            seconds.labels(request.method, request.route).observe(request.seconds)

    return seen


def measure_queue(metrics: Metrics, queue: ErrorQueuePort) -> None:
    """The queue's depth and age, asked for at each scrape."""
    depth: int | None = None
    oldest: float | None = None

    async def look() -> None:
        nonlocal depth, oldest
        depth = oldest = None
        depth = await queue.depth()
        oldest = await queue.oldest_seconds() or 0.0

    metrics.refresh(look)
    metrics.gauge("queue_depth", "Items that no worker has committed yet.", lambda: depth)
    metrics.gauge("queue_oldest_seconds", "How long the oldest of them has waited.", lambda: oldest)


def measure_producer(metrics: Metrics, producer: Producer) -> None:
    """What a process that makes errors puts into the queue."""
    metrics.total("queue_items_put", "Items that the queue took.", lambda: producer.engine.items_put)
    metrics.total(
        "queue_put_failures",
        "Puts that the queue refused: spooled instead.",
        lambda: producer.engine.put_failures,
    )
    metrics.gauge(
        "spooled_items", "Items that wait on this machine for the queue.", lambda: producer.spool.spooled
    )


def measure_worker(metrics: Metrics) -> Callable[[WorkedBatch], None]:
    """Returns what hears of each committed batch."""
    items = metrics.counter("worker_items", "Items committed, by what became of them.", labels=("became",))
    errors = metrics.counter(
        "worker_errors",
        "Errors in committed batches; one that came twice counts twice.",
        labels=("code", "source"),
    )
    seconds = metrics.histogram(
        "worker_batch_seconds", "How long a batch's transaction took.", buckets=_BATCH_SECONDS
    )
    sizes = metrics.histogram("worker_batch_items", "How many items a batch had.", buckets=_BATCH_ITEMS)
    latency = metrics.histogram(
        "error_to_row_seconds", "From an error's occurrence to its row's commit.", buckets=_LATENCY_SECONDS
    )

    def worked(batch: WorkedBatch) -> None:
        done = batch.committed
        for became, number in (
            ("row", done.inserted),
            ("duplicate", done.duplicates),
            ("end", done.ended),
            ("dead_letter", done.dead),
            ("suppression", done.suppressed),
        ):
            items.labels(became).inc(number)
        seconds.observe(batch.seconds)
        sizes.observe(len(batch.deliveries))
        now = time.time()
        for delivery in batch.deliveries:
            if isinstance(delivery.item, ErrorItem):
                record = delivery.item.record
                errors.labels(record.code.value, record.source.value).inc()
                with contextlib.suppress(ValueError):
                    latency.observe(max(0.0, now - parse_iso(record.occurred_at).timestamp()))

    return worked


def measure_service(metrics: Metrics, service: ServiceNumbers) -> None:
    """Capacity and the line, as the coordinator tells every service; and this service's own."""

    def of_all(name: str) -> Callable[[], float | None]:
        return lambda: None if service.capacity is None else float(getattr(service.capacity, name))

    metrics.gauge(
        "coordinator", "1 where this session service coordinates.", lambda: int(service.coordinates)
    )
    metrics.gauge("signaling_sockets", "Signaling sockets that are open here.", lambda: service.sockets)
    metrics.total(
        "signaling_ignored",
        "Signaling messages that were ignored here.",
        lambda: _labelled(service.ignored_signals),
        labels=("reason",),
    )
    metrics.gauge("runners", "Runners that are linked.", of_all("runners"))
    metrics.gauge("sessions_capacity", "Sessions that all runners can host together.", of_all("capacity"))
    metrics.gauge("sessions_free", "Sessions that could be taken now.", of_all("free"))
    metrics.gauge("sessions_waiting", "Sessions in the waiting line.", of_all("waiting"))
    metrics.gauge(
        "session_mean_seconds", "How long sessions last on average.", of_all("mean_session_seconds")
    )


def measure_jobs(metrics: Metrics) -> Callable[[JobDone], None]:
    """Returns what hears of each provisioning job that is done."""
    seconds = metrics.histogram(
        "provisioning_seconds",
        "From a session's request to a runner, or to its failure; waiting included.",
        labels=("outcome",),
        buckets=_PROVISIONING_SECONDS,
    )

    def done(job: JobDone) -> None:
        seconds.labels("ready" if job.failure is None else job.failure.value).observe(job.seconds)

    return done


def measure_sessions(metrics: Metrics, count: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
    """Sessions that are not over, by status, asked for at each scrape."""
    counts: Mapping[str, int] | None = None

    async def look() -> None:
        nonlocal counts
        counts = None
        counts = await count()

    metrics.refresh(look)
    metrics.gauge(
        "sessions",
        "Sessions that are not over, by status.",
        lambda: None if counts is None else {(status,): float(number) for status, number in counts.items()},
        labels=("status",),
    )


def measure_runner(metrics: Metrics, look: Callable[[], RunnerGauges]) -> None:
    """A runner's own numbers."""
    for name, words, read in (
        ("runner_sessions", "Sessions hosted.", lambda: look().sessions),
        ("runner_capacity", "Sessions that may be hosted at once.", lambda: look().capacity),
        ("runner_draining", "1 where it takes no more sessions.", lambda: int(look().draining)),
        ("runner_children", "Agents' processes that are alive.", lambda: look().children),
        ("runner_warm_children", "Of these, those that wait for a session.", lambda: look().warm_children),
    ):
        metrics.gauge(name, words, read)
    for name, words, read in (
        ("runner_warm_taken", "Warm children that a session took.", lambda: look().warm_taken),
        ("runner_warm_lost", "Warm children that were lost before one came.", lambda: look().warm_lost),
        (
            "runner_put_failures",
            "Attempts to put an error that neither queue nor spool took.",
            lambda: look().queue_put_failures,
        ),
    ):
        metrics.total(name, words, read)
    metrics.total("runner_errors", "Errors recorded.", lambda: _labelled(look().errors), labels=("code",))
    metrics.total(
        "runner_refused", "Assignments refused.", lambda: _labelled(look().refused), labels=("failure_code",)
    )
    metrics.total(
        "runner_signaling_ignored",
        "Signaling messages of clients that came to nothing.",
        lambda: _labelled(look().ignored_signals),
        labels=("reason",),
    )


def measure_gateway(metrics: Metrics, gateway: Gateway) -> None:
    """A chat gateway's own numbers."""
    here, prompts, outputs = gateway.here, gateway.prompts, gateway.outputs
    metrics.gauge("chat_sockets", "Chat clients' sockets that are open here.", lambda: len(here))
    metrics.gauge("chat_conversations", "Conversations that have sockets here.", lambda: here.conversations)
    metrics.gauge(
        "chat_waiting_conversations",
        "Conversations with a prompt that no session has taken, as far as this gateway sees to them.",
        lambda: prompts.waiting,
    )
    metrics.total("chat_prompts", "Prompts accepted here.", lambda: prompts.accepted)
    metrics.total("chat_frames", "Frames queued for sockets.", lambda: here.sent)
    metrics.total(
        "chat_frames_dropped", "Frames not kept for sockets that read slowly.", lambda: here.dropped
    )
    metrics.total(
        "chat_outputs_dropped",
        "What sessions said and was not kept because too much waited: it is said again.",
        lambda: outputs.overflowed,
    )


def measure_outputs(metrics: Metrics) -> Callable[[float], None]:
    """Returns what hears of each output of a session that was stored here."""
    return metrics.histogram(
        "chat_output_seconds",
        "From the relay into the database, for what chat sessions say.",
        buckets=_BATCH_SECONDS,
    ).observe


def _labelled(numbers: Mapping[str, int]) -> Mapping[tuple[str, ...], float]:
    return {(str(getattr(name, "value", name)),): float(number) for name, number in numbers.items()}
