"""Counts of the engine process: each change is sent once, gauges again to a new receiver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.waiting import until
from triton_diffusers.engine_process import metrics
from triton_diffusers.engine_process.messages import MetricKey, Metrics
from triton_diffusers.engine_process.metrics import MetricsCollector
from triton_diffusers.optimize.optimizer import OptimizerState

BASE, CONTROL, WORKER = ("model", "sd_base"), ("model", "sd_controlnet"), ("worker", "1")


class Receiver:
    """Receiver that adds up what it is sent, as Triton does."""

    def __init__(self) -> None:
        self.messages = 0
        self.counters: dict[MetricKey, float] = {}
        self.gauges: dict[MetricKey, float] = {}

    def __call__(self, sent: Metrics) -> None:
        for key, amount in sent.added.items():
            self.counters[key] = self.counters.get(key, 0.0) + amount
        self.gauges.update(sent.values)
        self.messages += 1


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def collector(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCollector]:
    monkeypatch.setattr(metrics, "_PERIOD_SECONDS", 0.01)
    made = MetricsCollector("1", receiver)
    yield made
    made.close()


def test_counts_of_requests_are_those_of_their_models(collector: MetricsCollector, receiver: Receiver) -> None:
    collector.request_ended("sd_base", "succeeded", 1.0, 2.5)
    collector.request_ended("sd_base", "succeeded", 0.5, 1.0)
    collector.request_ended("sd_controlnet", "failed", -1e-9, 0.0)  # clocks may differ
    collector.images_made("sd_base", 3)
    collector.steps_made("sd_controlnet", 4)
    collector.close()
    assert receiver.counters == {
        ("requests", (BASE, ("outcome", "succeeded"))): 2,
        ("queue_seconds", (BASE,)): 1.5,
        ("run_seconds", (BASE,)): 3.5,
        ("requests", (CONTROL, ("outcome", "failed"))): 1,
        ("queue_seconds", (CONTROL,)): 0,
        ("run_seconds", (CONTROL,)): 0,
        ("images", (BASE,)): 3,
        ("steps", (CONTROL,)): 4,
    }


def test_counts_of_the_engine_are_those_of_its_process(collector: MetricsCollector, receiver: Receiver) -> None:
    for _ in range(2):
        collector.unet_called(3, 0.25)
    collector.in_flight(3, 5)
    collector.in_flight(1, 0)
    collector.engine_changed("eager")
    collector.engine_changed("openvino")
    collector.optimizer_changed(OptimizerState.BUILDING, None, "")
    collector.close()
    assert receiver.counters == {("calls", (WORKER, ("images", "3"))): 2, ("call_seconds", (WORKER,)): 0.5}
    states = {("optimizer", (WORKER, ("state", state.value))): 0 for state in OptimizerState}
    assert receiver.gauges == {
        **states,
        ("optimizer", (WORKER, ("state", "building"))): 1,
        ("in_flight", (WORKER,)): 1,
        ("queued", (WORKER,)): 0,
        ("engine", (WORKER, ("engine", "eager"))): 0,
        ("engine", (WORKER, ("engine", "openvino"))): 1,
    }


def test_changes_are_sent_regularly_and_only_once(collector: MetricsCollector, receiver: Receiver) -> None:
    collector.images_made("sd_base", 3)
    until(lambda: receiver.messages == 1)
    collector.images_made("sd_base", 4)
    until(lambda: receiver.messages == 2)
    collector.close()
    assert receiver.messages == 2, "nothing is sent without a change"
    assert receiver.counters == {("images", (BASE,)): 7}


def test_a_model_that_has_made_nothing_has_zeros(collector: MetricsCollector, receiver: Receiver) -> None:
    collector.introduce("sd_base")
    collector.close()
    assert set(receiver.counters.values()) == {0}
    assert receiver.counters.keys() == {
        *((family, (BASE,)) for family in ("images", "queue_seconds", "run_seconds", "steps")),
        ("call_seconds", (WORKER,)),
    }


def test_a_new_receiver_gets_the_gauges_and_no_count_twice(collector: MetricsCollector, receiver: Receiver) -> None:
    collector.images_made("sd_base", 3)
    collector.in_flight(3, 5)
    until(lambda: receiver.messages)
    receiver.gauges.clear()
    collector.repeat()
    collector.close()
    assert receiver.gauges == {("in_flight", (WORKER,)): 3, ("queued", (WORKER,)): 5}
    assert receiver.counters == {("images", (BASE,)): 3}
