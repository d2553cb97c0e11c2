"""What the service counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cluster.serving.answers import Answer, Refusal

PATHS = (
    "/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/model", "/v1/images", "/v1/super-resolve", "/v1/edit",
    "/v1/style", "/v1/decompose", "/run/facts", "/run/metrics", "/run/scores", "/run/settings",
)  # fmt: skip
"""Paths that are counted by their name; all others are "other"."""
ERROR_STATUS = 400
SIZES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Telemetry:
    """Counters of one service."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "freqgan_serve_requests", "Requests that were answered.", ["path", "status"], registry=registry
        )
        self._errors = Counter(
            "freqgan_serve_errors", "Requests with a status of 400 or more.", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "freqgan_serve_request_seconds", "Seconds of a request.", ["path"], registry=registry, buckets=SECONDS
        )
        self._images = Counter("freqgan_serve_images", "Images in answers.", registry=registry)
        self._pass_seconds = Histogram(
            "freqgan_serve_pass_seconds", "Seconds of a pass of the model.", registry=registry, buckets=SECONDS
        )
        self._pass_images = Histogram(
            "freqgan_serve_pass_images", "Images of a pass of the model.", registry=registry, buckets=SIZES
        )
        self._pass_requests = Histogram(
            "freqgan_serve_pass_requests", "Requests that shared a pass.", registry=registry, buckets=SIZES
        )
        self._version = Gauge(
            "freqgan_serve_model", "1 for the model that answered last.", ["version", "model"], registry=registry
        )

    def requested(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        name = path if path in PATHS else "other"
        self._requests.labels(name, str(status)).inc()
        self._seconds.labels(name).observe(seconds)
        if status >= ERROR_STATUS:
            self._errors.labels(name, str(status)).inc()

    def answered(self, answer: Answer | Refusal) -> None:
        """Count the images of an answer, and the passes of the model."""
        if isinstance(answer, Refusal):
            return
        self._images.inc(answer.images)
        for record in answer.passes:
            self._pass_seconds.observe(record.seconds)
            self._pass_images.observe(record.images)
            self._pass_requests.observe(record.requests)

    def served(self, version: str, model: str) -> None:
        """Note which model answers now."""
        self._version.clear()
        self._version.labels(version, model).set(1)

    def text(self) -> bytes:
        """Return all counters, in the text format of Prometheus."""
        return generate_latest(self.registry)
