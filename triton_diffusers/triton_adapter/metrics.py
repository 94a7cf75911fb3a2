"""The loop's counts as custom metrics on Triton's own Prometheus endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

_COUNTERS = {
    "requests": ("sd_requests_total", "Requests answered, by outcome"),
    "images": ("sd_images_total", "Images made"),
    "steps": ("sd_image_steps_total", "Denoising steps, counted for each image"),
    "calls": ("sd_unet_calls_total", "UNet calls, by the number of images that shared the call"),
    "call_seconds": ("sd_unet_seconds_total", "Seconds in UNet calls and scheduler steps"),
    "queue_seconds": ("sd_request_queue_seconds_total", "Seconds from arrival to admission, all requests together"),
    "run_seconds": ("sd_request_run_seconds_total", "Seconds from admission to the answer, all requests together"),
}
_GAUGES = {
    "in_flight": ("sd_images_in_flight", "Images that are being made now"),
    "queued": ("sd_requests_queued", "Requests that wait for admission"),
}


class TritonTelemetry:
    """Implements ``Telemetry`` for one model; every metric is labelled with the model's name."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._families = {
            **{key: self._family(*texts, pb_utils.MetricFamily.COUNTER) for key, texts in _COUNTERS.items()},
            **{key: self._family(*texts, pb_utils.MetricFamily.GAUGE) for key, texts in _GAUGES.items()},
        }
        # A metric is dropped by Triton together with its Python object, so all are kept.
        self._metrics: dict[tuple[str, str], Any] = {}
        for key in self._families.keys() - {"requests", "calls"}:
            self._metric(key)

    def close(self) -> None:
        """Give the metrics back; a Python backend that ends with metrics of its own left crashes at its end."""
        self._metrics.clear()
        self._families.clear()

    def request_ended(self, outcome: str, queue_seconds: float, run_seconds: float) -> None:
        self._metric("requests", {"outcome": outcome}).increment(1)
        self._metric("queue_seconds").increment(max(0.0, queue_seconds))
        self._metric("run_seconds").increment(max(0.0, run_seconds))

    def images_made(self, count: int) -> None:
        self._metric("images").increment(count)

    def unet_called(self, images: int, seconds: float) -> None:
        self._metric("calls", {"images": str(images)}).increment(1)
        self._metric("call_seconds").increment(seconds)
        self._metric("steps").increment(images)

    def in_flight(self, images: int, queued: int) -> None:
        self._metric("in_flight").set(images)
        self._metric("queued").set(queued)

    @staticmethod
    def _family(name: str, description: str, kind: Any) -> Any:
        return pb_utils.MetricFamily(name=name, description=description, kind=kind)

    def _metric(self, key: str, labels: Mapping[str, str] | None = None) -> Any:
        found = self._metrics.get((key, str(labels)))
        if found is None:
            found = self._families[key].Metric(labels={"model": self._model, **(labels or {})})
            self._metrics[(key, str(labels))] = found
        return found
