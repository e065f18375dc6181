"""Prometheus metrics of one process: events are counted here, states are read when somebody scrapes.

Labels are from closed lists (routes, codes, statuses), never ids: the number of series is bounded. Knows
prometheus-client; what is measured, and its names, are the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "voicethere_"
REFRESH_SECONDS = 2.0
"""How long a scrape waits for numbers that must be asked for."""

Numbers = Mapping[tuple[str, ...], float] | float | None
"""One number, or one for each tuple of label values; None: not known now."""

_log = structlog.get_logger(__name__)


class Metrics:
    """One registry.

    Example:
        >>> metrics = Metrics()
        >>> metrics.gauge("runners", "Runners that are linked.", lambda: len(runners))
        >>> text = await metrics.text()
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._readings = _Readings()
        self._registry.register(self._readings)
        self._refreshers: list[Callable[[], Awaitable[None]]] = []

    def gauge(
        self, name: str, words: str, read: Callable[[], Numbers], *, labels: Sequence[str] = ()
    ) -> None:
        """A state. `read` is called at every scrape."""
        self._readings.add(GaugeMetricFamily, name, words, labels, read)

    def total(
        self, name: str, words: str, read: Callable[[], Numbers], *, labels: Sequence[str] = ()
    ) -> None:
        """A number that only grows and is counted elsewhere; `_total` is added to its name."""
        self._readings.add(CounterMetricFamily, name, words, labels, read)

    def counter(self, name: str, words: str, *, labels: Sequence[str] = ()) -> Counter:
        """A number that is counted here; `_total` is added to its name."""
        return Counter(PREFIX + name, words, labels, registry=self._registry)

    def histogram(
        self, name: str, words: str, *, labels: Sequence[str] = (), buckets: Sequence[float]
    ) -> Histogram:
        """Observed values, in `buckets`."""
        return Histogram(PREFIX + name, words, labels, registry=self._registry, buckets=buckets)

    def refresh(self, look: Callable[[], Awaitable[None]]) -> None:
        """Have `look` called before each scrape, for numbers that must be asked for."""
        self._refreshers.append(look)

    async def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        await asyncio.gather(*(self._refreshed(look) for look in self._refreshers))
        return generate_latest(self._registry)

    async def _refreshed(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await look()
        except Exception as problem:
            # A part that is away must not take the other numbers with it; /readyz names it.
            _log.debug("metric_not_known", problem=str(problem) or type(problem).__name__)


Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


class _Readings(Collector):
    def __init__(self) -> None:
        self._all: dict[str, tuple[Family, str, Sequence[str], Callable[[], Numbers]]] = {}

    def add(
        self, family: Family, name: str, words: str, labels: Sequence[str], read: Callable[[], Numbers]
    ) -> None:
        if PREFIX + name in self._all:
            raise ValueError(f"the metric {name} is there already")
        self._all[PREFIX + name] = (family, words, labels, read)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry must not read numbers to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        for name, (family, words, labels, read) in self._all.items():
            try:
                numbers = read()
            except Exception:
                _log.exception("metric_failed", metric=name)
                continue
            if numbers is None:
                continue
            metric = family(name, words, labels=labels)
            if isinstance(numbers, Mapping):
                for values, number in numbers.items():
                    metric.add_metric(values, number)
            else:
                metric.add_metric((), numbers)
            yield metric
