"""What the service counts about itself, in Prometheus' words.

Routes are counted by their template, never by the path that a client wrote, so the number of series is
bounded by the program.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PHOTOS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "fieldmark_requests",
            "Answers.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "fieldmark_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("fieldmark_requests_in_flight", "Being answered.", registry=registry)
        self.bytes_in = Counter(
            "fieldmark_received_bytes", "Bodies of requests.", registry=registry
        )
        self.refused = Counter(
            "fieldmark_refused",
            "Requests that were not let in or not finished.",
            ["reason"],
            registry=registry,
        )
        self.waiting = Gauge(
            "fieldmark_photos_waiting", "For decoder and encoder.", registry=registry
        )
        self.batch_photos = Histogram(
            "fieldmark_batch_photos",
            "Photos that went through the encoder together.",
            buckets=_PHOTOS,
            registry=registry,
        )
        self.label_changes = Counter(
            "fieldmark_label_changes", "Photos labelled through this process.", registry=registry
        )
        ProcessCollector(registry=registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answer.

        Args:
            method: Of the request.
            route: Its route's template.
            status: Of the answer.
            seconds: That it took.
        """
        self.requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of them, in the text format."""
        return generate_latest(self._registry)
