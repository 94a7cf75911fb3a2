"""Requests in one batch do not touch one another, whatever becomes of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from tests.integration.calls import MODELS, Calls, opened, pixels, psnr, small
from tests.integration.conftest import RunningTriton, TritonStarter
from triton_diffusers.sampling.schedulers import SCHEDULERS

CLOSE = 40.0  # dB

MIXED: list[dict[str, Any]] = [
    {"steps": 6, "seed": "1"},
    {"steps": 4, "seed": "2", "cfg_scale": 1.0, "scheduler": "Euler"},
    {"steps": 8, "seed": "3", "width": 96, "image_num": 2, "scheduler": "DPM++ 2M Karras"},
    {"steps": 5, "seed": "4", "scheduler": "Euler a", "image_num": 3},
    {"steps": 3, "seed": "5", "height": 90, "width": 100, "scheduler": "DDIM"},
    {"steps": 4, "seed": "6", "scheduler": "Heun", "negative_prompt": "blurry", "cfg_scale": 12.5},
    {"steps": 7, "seed": "7", "scheduler": "UniPC", "prompt": "蓝色背景上的红苹果"},
    {"steps": 8, "seed": str(2**64 - 1), "scheduler": "LCM", "image_num": 2, "output_format": "png"},
]


@pytest.fixture(scope="module")
def calls(triton: RunningTriton) -> Iterator[Calls]:
    opened_calls = Calls(triton)
    yield opened_calls
    opened_calls.close()


def assert_together_is_alone(calls: Calls, requests: list[dict[str, Any]]) -> None:
    """Send each alone, then all at once, to both models in turn, and compare what the same model drew."""
    models = [MODELS[index % 2] for index in range(len(requests))]
    alone = [calls.grpc(model, **fields) for model, fields in zip(models, requests, strict=True)]
    images = [image for reply in alone for image in reply["images"]]
    assert len(set(images)) == len(images)
    pending = [calls.send(model, **fields) for model, fields in zip(models, requests, strict=True)]
    for fields, sent, expected in zip(requests, pending, alone, strict=True):
        reply = sent.result()
        assert (reply["seed"], reply["task_id"]) == (fields["seed"], fields["task_id"])
        assert len(reply["images"]) == fields.get("image_num", 1)
        for one, other in zip(reply["images"], expected["images"], strict=True):
            found = psnr(pixels(one), pixels(other))
            assert found >= CLOSE, f"{found:.1f} dB for {fields}"


def test_mixed_requests_at_once_give_what_each_gives_alone(calls: Calls) -> None:
    before = calls.metrics()
    assert_together_is_alone(calls, [small(**changes) for changes in MIXED])
    now = calls.metrics()
    shared = [name for name in now if name.startswith("sd_unet_calls_total") and now[name] != before.get(name)]
    assert any('images="4"' in name for name in shared), "calls were shared"


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_a_hundred_rounds_of_mixed_requests(calls: Calls) -> None:
    chance = random.Random(0)
    for _ in range(100):
        requests = [
            small(
                seed=str(chance.randrange(2**64 - 8)),
                steps=chance.randint(1, 8),
                scheduler=chance.choice(list(SCHEDULERS)),
                width=chance.choice([64, 72, 96]),
                height=chance.choice([64, 90]),
                cfg_scale=chance.choice([1.0, 3.0, 7.5]),
                image_num=chance.randint(1, 3),
                prompt=chance.choice(["a red apple", "a green pear", "红苹果"]),
            )
            for _ in range(8)
        ]
        assert_together_is_alone(calls, requests)


def test_bad_requests_among_good_ones_fail_alone(calls: Calls) -> None:
    good = small(steps=6)
    expected = calls.grpc(**good)["images"]
    bad = [
        {"steps": -1},
        {"scheduler": "LCM", "steps": 60},
        {"lora_path": ["a"]},
        {"task_id": "/"},
        {"prompt": b"\xff"},
    ]
    pending = []
    for changes in bad:
        pending.append((calls.send(**good), None))
        pending.append((calls.send(**small(**changes)), changes))
    for sent, changes in pending:
        if changes is None:
            assert psnr(pixels(sent.result()["images"][0]), pixels(expected[0])) >= CLOSE
        else:
            with pytest.raises(InferenceServerException, match=r"is invalid|is not in the model directory"):
                sent.result()


@pytest.mark.parametrize("model", MODELS)
def test_a_short_request_is_not_held_up_by_a_long_one(calls: Calls, model: str) -> None:
    long = calls.send(model, **(fields := small(steps=50, image_num=4)))
    calls.wait_for_job(fields["task_id"], lambda job: job["step"] > 0)
    assert calls.grpc(model, **small(steps=4))["success"] == 1
    # Each step of the short one takes the long one's images along, so a good part of the long one is still to do.
    job = calls.job(fields["task_id"])
    assert job["state"] == "running"
    assert job["step"] < 150
    calls.jobs("cancel", task_id=fields["task_id"])
    with pytest.raises(InferenceServerException):
        long.result()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    """Return a server of narrow bounds, but for the steps of an image that shall not be done before it is given up."""
    starter = TritonStarter(tmp_path_factory.mktemp("narrow"))
    try:
        bounds = {"MAX_QUEUE": "1", "MAX_IMAGES_IN_FLIGHT": "2", "MAX_STEPS": "1000"}
        opened_calls = Calls(starter(env={f"TRITON_DIFFUSERS_{name}": value for name, value in bounds.items()}))
        yield opened_calls
        opened_calls.close()
    finally:
        starter.end()


def test_a_client_that_gives_up_frees_the_engine(narrow: Calls) -> None:
    given_up = narrow.send(**(fields := small(steps=1000, image_num=2, width=128, height=128)))
    narrow.wait_for_job(fields["task_id"], lambda job: job["step"] > 0)
    given_up.cancel()
    job = narrow.wait_for_job(fields["task_id"], lambda job: job["state"] not in ("queued", "running"))
    assert job["state"] == "cancelled"
    assert job["step"] < job["steps"]
    with pytest.raises(InferenceServerException) as caught:
        given_up.result()
    assert caught.value.status() == "StatusCode.CANCELLED"
    assert narrow.metrics()["sd_images_in_flight"] == 0


def test_a_queue_that_is_full_says_so(narrow: Calls) -> None:
    running = narrow.send(**(first := small(steps=150, image_num=2, width=128, height=128)))
    narrow.wait_for_job(first["task_id"], lambda job: job["state"] == "running")
    waiting = narrow.send("ensemble", **(second := small()))
    narrow.wait_for_job(second["task_id"], lambda job: job["state"] == "queued")
    for model in MODELS:
        with pytest.raises(InferenceServerException, match="1 requests wait already, the limit") as caught:
            narrow.grpc(model, **small())
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        with pytest.raises(InferenceServerException, match="1 requests wait already, the limit") as caught:
            narrow.http(model, **small())
        assert caught.value.status() == "503"
    narrow.jobs("cancel", task_id=first["task_id"])
    with pytest.raises(InferenceServerException):
        running.result()
    assert opened(waiting.result()["images"][0]).size == (64, 64)


@pytest.mark.parametrize("model", MODELS)
def test_sequence_parameters_of_callers_mean_nothing(calls: Calls, model: str) -> None:
    """Two requests with one sequence id, both of which say that they begin and end the sequence, share nothing."""
    first = calls.send(model, sequence_id=4, **small(task_id="first", steps=20))
    second = calls.send(model, sequence_id=4, **small(task_id="second", prompt="a green pear"))
    replies = [first.result(), second.result()]
    assert [(reply["task_id"], reply["success"]) for reply in replies] == [("first", 1), ("second", 1)]
    assert replies[0]["images"] != replies[1]["images"]
