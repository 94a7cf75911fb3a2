"""The ``sd_…`` metrics on Triton's own endpoint count what happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from tritonclient.utils import InferenceServerException

from tests.integration.calls import Calls, small
from tests.integration.conftest import RunningTriton
from tests.waiting import until


@pytest.fixture
def calls(triton: RunningTriton) -> Iterator[Calls]:
    opened_calls = Calls(triton)
    opened_calls.wait_until_idle()
    yield opened_calls
    opened_calls.close()


def moved(calls: Calls, before: dict[str, float]) -> Counter[str]:
    """Return what has changed since, once the server is idle."""
    calls.wait_until_idle()
    until(lambda: calls.metrics()["sd_images_in_flight"] == 0)
    now = calls.metrics()
    return Counter({name: value - before.get(name, 0.0) for name, value in now.items() if value != before.get(name)})


def test_a_request_is_counted(calls: Calls) -> None:
    before = calls.metrics()
    calls.grpc(**small(image_num=2, steps=3))
    changes = moved(calls, before)
    assert changes['sd_requests_total{outcome="succeeded"}'] == 1
    assert changes["sd_images_total"] == 2
    assert changes["sd_image_steps_total"] == 6
    assert changes['sd_unet_calls_total{images="2"}'] == 3
    assert changes["sd_unet_seconds_total"] > 0
    assert changes["sd_request_run_seconds_total"] >= changes["sd_unet_seconds_total"]
    assert changes["sd_request_queue_seconds_total"] >= 0


def test_outcomes_are_counted_apart(calls: Calls) -> None:
    before = calls.metrics()
    with pytest.raises(InferenceServerException):
        calls.grpc(**small(steps=-1))
    with pytest.raises(InferenceServerException):
        calls.grpc(**small(scheduler="LCM", steps=60))
    sent = calls.send(**(fields := small(steps=150)))
    calls.wait_for_job(fields["task_id"], lambda job: job["state"] == "running")
    calls.jobs("cancel", task_id=fields["task_id"])
    with pytest.raises(InferenceServerException):
        sent.result()
    changes = moved(calls, before)
    outcomes = {name: change for name, change in changes.items() if name.startswith("sd_requests_total")}
    assert outcomes == {
        'sd_requests_total{outcome="refused"}': 1,
        'sd_requests_total{outcome="failed"}': 1,
        'sd_requests_total{outcome="cancelled"}': 1,
    }
    assert changes["sd_images_total"] == 0


def test_gauges_rise_and_fall(calls: Calls) -> None:
    assert calls.metrics()["sd_images_in_flight"] == 0
    sent = calls.send(**(fields := small(steps=150, image_num=3)))
    until(lambda: calls.metrics()["sd_images_in_flight"] == 3)
    assert calls.metrics()["sd_requests_queued"] == 0
    calls.jobs("cancel", task_id=fields["task_id"])
    with pytest.raises(InferenceServerException):
        sent.result()
    until(lambda: calls.metrics()["sd_images_in_flight"] == 0)


def test_requests_that_wait_are_counted(calls: Calls) -> None:
    pending = [calls.send(**small(task_id="many", steps=150, image_num=8)) for _ in range(9)]
    # 64 images may be in flight: eight of these requests.
    until(lambda: (now := calls.metrics())["sd_images_in_flight"] == 64 and now["sd_requests_queued"] == 1)
    calls.jobs("cancel", task_id="many")
    for sent in pending:
        with pytest.raises(InferenceServerException):
            sent.result()
    until(lambda: calls.metrics()["sd_requests_queued"] == 0)


def test_sharing_is_seen(calls: Calls) -> None:
    before = calls.metrics()
    pending = [calls.send(**small(steps=20)) for _ in range(3)]
    for sent in pending:
        sent.result()
    changes = moved(calls, before)
    assert changes["sd_image_steps_total"] == 60
    shared = changes['sd_unet_calls_total{images="2"}'] + changes['sd_unet_calls_total{images="3"}']
    assert shared > 0
    single = changes['sd_unet_calls_total{images="1"}']
    assert (
        single + 2 * changes['sd_unet_calls_total{images="2"}'] + 3 * changes['sd_unet_calls_total{images="3"}'] == 60
    )
