"""The thread that hands metrics to Triton."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

from triton_diffusers.engine_process.messages import MetricKey, Metrics
from triton_diffusers.engine_process.metrics import MetricsCollector
from triton_diffusers.optimize.optimizer import OptimizerState


class Family:
    """Metrics that can be looked at; those of one name do not take what they are given."""

    COUNTER, GAUGE = "counter", "gauge"
    broken = ""

    def __init__(self, name: str, description: str, kind: Any) -> None:
        self.name, self.kind = name, kind
        self.values: dict[tuple[tuple[str, str], ...], float] = {}

    def Metric(self, labels: dict[str, str]) -> Any:  # noqa: N802 - Triton's name
        key = tuple(labels.items())
        assert key not in self.values, "Triton has it already"
        self.values[key] = 0.0

        def increment(amount: float) -> None:
            assert self.kind == self.COUNTER
            self._set(key, self.values[key] + amount)

        def replace(value: float) -> None:
            assert self.kind == self.GAUGE
            self._set(key, value)

        return MagicMock(increment=increment, set=replace)

    def _set(self, key: tuple[tuple[str, str], ...], value: float) -> None:
        if self.name == self.broken:
            raise RuntimeError("Triton does not like it")
        self.values[key] = value


@pytest.fixture
def exporter(backend: MagicMock, adapter: Callable[[str], ModuleType]) -> Any:
    backend.MetricFamily = Family
    return adapter("metrics").MetricsExporter()


def counted(family: str, amount: float, **labels: str) -> Metrics:
    return Metrics({(family, tuple(labels.items())): amount}, {})


def measured(family: str, value: float, **labels: str) -> Metrics:
    return Metrics({}, {(family, tuple(labels.items())): value})


def test_counters_are_added_up_and_gauges_are_set(exporter: Any) -> None:
    families = dict(exporter._families)
    for change in (
        counted("images", 3.0, model="sd_base"),
        counted("images", 1.5, model="sd_controlnet"),
        counted("images", 2.0, model="sd_base"),
        measured("queued", 5.0, worker="0"),
        measured("queued", 2.0, worker="0"),
    ):
        exporter.export(change)
    exporter.close()
    assert families["images"].name == "sd_images_total"
    assert families["images"].values == {(("model", "sd_base"),): 5.0, (("model", "sd_controlnet"),): 1.5}
    assert families["queued"].values == {(("worker", "0"),): 2.0}


def test_a_metric_that_cannot_be_handed_over_does_not_end_the_others(
    exporter: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Family, "broken", "sd_requests_total")
    families = dict(exporter._families)
    for _ in range(2):
        exporter.export(counted("requests", 1.0, model="sd_base", outcome="succeeded"))
        exporter.export(counted("unknown", 1.0))
        exporter.export(counted("images", 3.0, model="sd_base"))
    exporter.close()
    assert families["images"].values == {(("model", "sd_base"),): 6.0}
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 2, "once for each"
    assert "requests" in told[0]
    assert "unknown" in told[1]


def test_closing_releases_the_metrics(exporter: Any) -> None:
    exporter.export(counted("images", 3.0, model="sd_base"))
    exporter.close()
    assert not exporter._metrics
    assert not exporter._families
    assert not exporter._thread.is_alive()


def test_the_engine_sends_the_families_of_the_table_with_its_labels(adapter: Callable[[str], ModuleType]) -> None:
    sent: dict[MetricKey, float] = {}

    def receive(metrics: Metrics) -> None:
        sent.update(metrics.added)
        sent.update(metrics.values)

    collector = MetricsCollector("0", receive)
    collector.request_ended("sd_base", "succeeded", 1.0, 2.0)
    collector.introduce("sd_base")
    collector.unet_called(2, 0.1)
    collector.in_flight(1, 2)
    collector.engine_changed("eager")
    collector.optimizer_changed(OptimizerState.BUILDING, None, "")
    collector.close()
    families = adapter("families").FAMILIES
    assert {(family, tuple(name for name, _ in labels)) for family, labels in sent} == {
        (key, family.labels) for key, family in families.items()
    }
