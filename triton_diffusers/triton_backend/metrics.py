"""The loop's counts as custom metrics on Triton's own Prometheus endpoint."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_diffusers.optimize.optimizer import OptimizerState
from triton_diffusers.optimize.policy import Target
from triton_diffusers.triton_backend.families import FAMILIES, Family

logger = logging.getLogger(__name__)

# How often the counts are handed to Triton. Each is a round trip to its process, which costs a step as much as its
# scheduler while the cores are busy: so the loop counts here, and a thread of its own hands over what came together.
_PERIOD_SECONDS = 0.25

# A metric: what it measures, and its labels beside the model's name.
_Key = tuple[str, tuple[tuple[str, str], ...]]


class TritonTelemetry:
    """Implements ``Telemetry`` and ``Observer`` for one model; every metric is labelled with the model's name."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._families = {key: _registered(family) for key, family in FAMILIES.items()}
        # A metric is dropped by Triton together with its Python object, so all are kept.
        self._metrics: dict[_Key, Any] = {}
        self._lock = threading.Lock()
        self._added: Counter[_Key] = Counter()
        self._set: dict[_Key, float] = {}
        self._engines: set[str] = set()
        self._failed: set[_Key] = set()
        for key, family in FAMILIES.items():
            if not family.labels:
                self._metric((key, ()))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._hand_over_regularly, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give the metrics back; a Python backend that ends with metrics of its own left crashes at its end."""
        self._closing.set()
        self._thread.join()
        self._metrics.clear()
        self._families.clear()

    def request_ended(self, outcome: str, queue_seconds: float, run_seconds: float) -> None:
        with self._lock:
            self._added["requests", (("outcome", outcome),)] += 1
            self._add("queue_seconds", max(0.0, queue_seconds))
            self._add("run_seconds", max(0.0, run_seconds))

    def images_made(self, count: int) -> None:
        with self._lock:
            self._add("images", count)

    def unet_called(self, images: int, seconds: float) -> None:
        with self._lock:
            self._added["calls", (("images", str(images)),)] += 1
            self._add("call_seconds", seconds)
            self._add("steps", images)

    def in_flight(self, images: int, queued: int) -> None:
        with self._lock:
            self._set["in_flight", ()] = images
            self._set["queued", ()] = queued

    def engine_changed(self, name: str) -> None:
        self._engines.add(name)
        with self._lock:
            for other in self._engines:
                self._set["engine", (("engine", other),)] = int(other == name)

    def optimizer_changed(self, state: OptimizerState, target: Target | None, failure: str) -> None:
        with self._lock:
            for other in OptimizerState:
                self._set["optimizer", (("state", other.value),)] = int(other is state)

    def _add(self, key: str, amount: float) -> None:
        # A Counter's values may be fractions, though its type says otherwise.
        self._added[key, ()] += amount  # type: ignore[assignment]

    def _hand_over_regularly(self) -> None:
        while not self._closing.wait(_PERIOD_SECONDS):
            self._hand_over()
        self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            added, values = self._added, self._set
            self._added, self._set = Counter(), {}
        for key, amount in added.items():
            with self._going_on(key):
                self._metric(key).increment(amount)
        for key, value in values.items():
            with self._going_on(key):
                self._metric(key).set(value)

    @contextmanager
    def _going_on(self, key: _Key) -> Iterator[None]:
        """A metric that Triton does not take must not end the others; it is said once, since it comes every period."""
        try:
            yield
        except Exception:
            if key not in self._failed:
                self._failed.add(key)
                logger.exception("the metric %s %s cannot be handed to Triton", *key)

    def _metric(self, key: _Key) -> Any:
        found = self._metrics.get(key)
        if found is None:
            family, labels = key
            found = self._families[family].Metric(labels={"model": self._model, **dict(labels)})
            self._metrics[key] = found
        return found


def _registered(family: Family) -> Any:
    kinds = {"counter": pb_utils.MetricFamily.COUNTER, "gauge": pb_utils.MetricFamily.GAUGE}
    return pb_utils.MetricFamily(name=family.name, description=family.help, kind=kinds[family.kind])
