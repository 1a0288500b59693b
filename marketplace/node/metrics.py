"""Metrics for Prometheus, on a registry of the node's own. No address or lease is ever a label."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Gauge = tuple[str, str, Callable[[], float]]


class Times:
    """A histogram of seconds for the quickest path: counted by one thread, read by any."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulated buckets as the exposition wants them, and the sum of all in seconds."""
        names = [*map(str, BUCKETS), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True)), self._sum


class Metrics(Collector):
    """Counts requests and transactions; reads gauges when it is asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = PrometheusCounter(
            "gpubid_http_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "gpubid_http_request_seconds", "Time to the answer's first byte.", buckets=BUCKETS, registry=self.registry
        )
        self.transaction_seconds = Times()
        """From a transaction's arrival to its durable receipt."""
        self.transactions: Counter[int] = Counter()
        """Transactions by the code of their receipt; a plain counter since it stands on the quickest path."""
        self.gauges: list[Gauge] = []
        self.registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: gauges are read only once the node runs."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Transactions by code, and every gauge as it stands."""
        family = CounterMetricFamily("gpubid_transactions", "Transactions by receipt code, 0 for applied.", labels=("code",))
        for code, count in sorted(self.transactions.copy().items()):
            family.add_metric((str(code),), count)
        yield family
        text = "From a transaction's arrival to its durable receipt."
        buckets, total = self.transaction_seconds.read()
        yield HistogramMetricFamily("gpubid_transaction_seconds", text, buckets=buckets, sum_value=total)
        for name, text, read in self.gauges:
            yield GaugeMetricFamily(name, text, value=read())

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
