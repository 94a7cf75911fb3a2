"""Custom metrics on Triton's own Prometheus endpoint."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_diffusers.engine_process.messages import MetricKey, Metrics
from triton_diffusers.triton_backend.families import FAMILIES, Family

logger = logging.getLogger(__name__)


class MetricsExporter:
    """Exporter of metrics to Triton, in a thread of its own: each change is a round trip to Triton's process."""

    def __init__(self) -> None:
        self._families = {key: _registered(family) for key, family in FAMILIES.items()}
        # A metric is dropped by Triton together with its Python object, so all are kept.
        self._metrics: dict[MetricKey, Any] = {}
        self._failed: set[MetricKey] = set()
        self._changes: SimpleQueue[Metrics | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._export_all, name="metrics", daemon=True)
        self._thread.start()

    def export(self, changes: Metrics) -> None:
        """Export changes soon."""
        self._changes.put(changes)

    def close(self) -> None:
        """Release the metrics; a Python backend that ends with metrics of its own left crashes at its end."""
        self._changes.put(None)
        self._thread.join()
        self._metrics.clear()
        self._families.clear()

    def _export_all(self) -> None:
        while (changes := self._changes.get()) is not None:
            for key, amount in changes.added.items():
                with self._logged_once(key):
                    self._metric(key).increment(amount)
            for key, value in changes.values.items():
                with self._logged_once(key):
                    self._metric(key).set(value)

    @contextmanager
    def _logged_once(self, key: MetricKey) -> Iterator[None]:
        """Isolate the failure of one metric, which is likely to be repeated with every change."""
        try:
            yield
        except Exception:
            if key not in self._failed:
                self._failed.add(key)
                logger.exception("the metric %s %s cannot be handed to Triton", *key)

    def _metric(self, key: MetricKey) -> Any:
        found = self._metrics.get(key)
        if found is None:
            family, labels = key
            found = self._metrics[key] = self._families[family].Metric(labels=dict(labels))
        return found


def _registered(family: Family) -> Any:
    kinds = {"counter": pb_utils.MetricFamily.COUNTER, "gauge": pb_utils.MetricFamily.GAUGE}
    return pb_utils.MetricFamily(name=family.name, description=family.help, kind=kinds[family.kind])
