"""Counts of the engine process, on their way to Triton's Prometheus endpoint."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from triton_diffusers.engine_process.messages import MetricKey, Metrics
from triton_diffusers.optimize.optimizer import OptimizerState
from triton_diffusers.optimize.policy import Target

# Each metric costs a round trip to Triton's process, so changes are sent together, this often.
_PERIOD_SECONDS = 0.25
_OF_MODEL = ("images", "queue_seconds", "run_seconds", "steps")


class MetricsCollector:
    """Implements ``Telemetry`` and ``Observer``; hands the changes to ``send`` in a thread of its own.

    Metrics of requests are labelled with their model, those of the engine with ``worker``.
    """

    def __init__(self, worker: str, send: Callable[[Metrics], None]) -> None:
        self._worker = ("worker", worker)
        self._send = send
        self._lock = threading.Lock()
        self._added: Counter[MetricKey] = Counter()
        self._changed: dict[MetricKey, float] = {}
        self._gauges: dict[MetricKey, float] = {}
        self._engines: set[str] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send_regularly, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the last changes."""
        self._closing.set()
        self._thread.join()

    def introduce(self, model: str) -> None:
        """Send the counters of a model that has made nothing yet, which are zero."""
        with self._lock:
            for family in _OF_MODEL:
                self._added[family, (("model", model),)] += 0
            self._added["call_seconds", (self._worker,)] += 0

    def repeat(self) -> None:
        """Send the values of all gauges again: their receiver is a new one."""
        with self._lock:
            self._changed = dict(self._gauges)

    def request_ended(self, model: str, outcome: str, queue_seconds: float, run_seconds: float) -> None:
        label = ("model", model)
        with self._lock:
            self._add("requests", 1, label, ("outcome", outcome))
            self._add("queue_seconds", max(0.0, queue_seconds), label)
            self._add("run_seconds", max(0.0, run_seconds), label)

    def images_made(self, model: str, count: int) -> None:
        with self._lock:
            self._add("images", count, ("model", model))

    def steps_made(self, model: str, count: int) -> None:
        with self._lock:
            self._add("steps", count, ("model", model))

    def unet_called(self, images: int, seconds: float) -> None:
        with self._lock:
            self._add("calls", 1, self._worker, ("images", str(images)))
            self._add("call_seconds", seconds, self._worker)

    def in_flight(self, images: int, queued: int) -> None:
        with self._lock:
            self._set("in_flight", images, self._worker)
            self._set("queued", queued, self._worker)

    def engine_changed(self, name: str) -> None:
        self._engines.add(name)
        with self._lock:
            for other in self._engines:
                self._set("engine", int(other == name), self._worker, ("engine", other))

    def optimizer_changed(self, state: OptimizerState, target: Target | None, failure: str) -> None:
        with self._lock:
            for other in OptimizerState:
                self._set("optimizer", int(other is state), self._worker, ("state", other.value))

    def _add(self, family: str, amount: float, *labels: tuple[str, str]) -> None:
        # A Counter's values may be fractions, though its type says otherwise.
        self._added[family, labels] += amount  # type: ignore[assignment]

    def _set(self, family: str, value: float, *labels: tuple[str, str]) -> None:
        self._gauges[family, labels] = self._changed[family, labels] = value

    def _send_regularly(self) -> None:
        while not self._closing.wait(_PERIOD_SECONDS):
            self._send_changes()
        self._send_changes()

    def _send_changes(self) -> None:
        with self._lock:
            added, values = self._added, self._changed
            self._added, self._changed = Counter(), {}
        if added or values:
            self._send(Metrics(dict(added), values))
