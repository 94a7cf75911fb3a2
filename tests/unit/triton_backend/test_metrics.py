"""The thread that hands the counts to Triton."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest


class Family:
    """Metrics that can be looked at; those of one name do not take what they are given."""

    COUNTER = GAUGE = 0
    broken = ""

    def __init__(self, name: str, description: str, kind: Any) -> None:
        self.name = name
        self.total = 0.0
        self.labels: set[str] = set()

    def Metric(self, labels: dict[str, str]) -> Any:  # noqa: N802 - Triton's name
        self.labels |= labels.keys()
        return MagicMock(increment=self.add, set=self.add)

    def add(self, amount: float) -> None:
        if self.name == self.broken:
            raise RuntimeError("Triton does not like it")
        self.total += amount


def test_a_metric_that_cannot_be_handed_over_does_not_end_the_others(
    backend: MagicMock,
    adapter: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend.MetricFamily = Family
    monkeypatch.setattr(Family, "broken", "sd_requests_total")
    metrics = adapter("metrics")
    monkeypatch.setattr(metrics, "_PERIOD_SECONDS", 0.01)
    telemetry = metrics.TritonTelemetry("sd_base")
    families = dict(telemetry._families)
    for number in (1, 2):
        telemetry.request_ended("succeeded", 1.0, 2.0)
        telemetry.images_made(3)
        while telemetry._added:
            telemetry._closing.wait(0.01)
        assert telemetry._thread.is_alive(), f"after {number}"
    telemetry.close()
    assert (families["images"].total, families["run_seconds"].total) == (6.0, 4.0)
    assert families["requests"].total == 0.0
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1, "once"
    assert "requests" in said[0].getMessage()


def test_metrics_have_the_labels_that_the_table_says(backend: MagicMock, adapter: Callable[[str], ModuleType]) -> None:
    backend.MetricFamily = Family
    metrics = adapter("metrics")
    telemetry = metrics.TritonTelemetry("sd_base")
    families = dict(telemetry._families)
    telemetry.request_ended("succeeded", 1.0, 2.0)
    telemetry.unet_called(2, 0.1)
    telemetry.in_flight(1, 2)
    telemetry.engine_changed("eager")
    telemetry.optimizer_changed(metrics.OptimizerState.BUILDING, None, "")
    telemetry.close()
    assert {key: family.labels for key, family in families.items()} == {
        key: {"model", *family.labels} for key, family in metrics.FAMILIES.items()
    }
