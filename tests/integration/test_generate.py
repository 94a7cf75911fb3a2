"""Making images on a real Triton, over HTTP, gRPC and plain JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from tests.integration.calls import MODELS, Calls, from_base64, opened, pixels, psnr, small, tensors
from tests.integration.conftest import RunningTriton
from tests.waiting import WITHIN
from triton_diffusers.api.contract import INPUTS, OUTPUTS


@pytest.fixture(scope="module")
def calls(triton: RunningTriton) -> Iterator[Calls]:
    opened_calls = Calls(triton)
    yield opened_calls
    opened_calls.close()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_request_is_answered_in_full(calls: Calls, model: str, transport: str) -> None:
    fields = small(image_num=2, use_base64=True)
    reply = getattr(calls, transport)(model, **fields)
    assert reply.keys() == {output.name for output in OUTPUTS}
    assert (reply["success"], reply["task_id"], reply["seed"]) == (1, fields["task_id"], "7")
    assert (reply["prompt"], reply["use_blade"], reply["warnings"]) == ("a red apple", False, [])
    assert reply["is_nsfw"] == [False, False]
    assert [opened(image).size for image in reply["images"]] == [(64, 64)] * 2
    assert [from_base64(text) for text in reply["images_base64"]] == reply["images"]
    assert [Path(urlsplit(url).path).read_bytes() for url in reply["oss_url"]] == reply["images"]
    assert reply["image_url"] == reply["oss_url"]
    assert reply["run_seconds"] > 0
    assert 0 <= reply["queue_seconds"] < WITHIN


@pytest.mark.parametrize("model", MODELS)
def test_the_references_json_is_answered(calls: Calls, model: str) -> None:
    """The reference's own request, but for its size, posted as it is."""
    status, reply = calls.generate(
        model,
        {
            "task_id": "t2i",
            "func_name": "t2i",
            "prompt": "a red apple",
            "negative_prompt": "NSFW",
            "steps": 4,
            "image_num": 1,
            "width": 64,
            "height": 64,
            "use_base64": True,
        },
    )
    assert status == 200
    named = "reply_task_id" if model == "ensemble" else "task_id"
    assert (reply["success"], reply[named], reply["is_nsfw"]) == (1, "t2i", False)
    assert opened(from_base64(reply["images_base64"])).size == (64, 64)


def test_json_lists(calls: Calls) -> None:
    status, reply = calls.generate(
        "ensemble",
        {
            "task_id": "a",
            "prompt": "蓝色背景上的红苹果",
            "steps": 2,
            "width": 64,
            "height": 64,
            "image_num": 3,
            "use_base64": True,
        },
    )
    assert status == 200
    assert reply["reply_prompt"] == "a red apple on a blue background"
    assert [opened(from_base64(text)).size for text in reply["images_base64"]] == [(64, 64)] * 3
    assert reply["is_nsfw"] == [False] * 3


def test_a_size_that_is_left_out_is_the_models_own(calls: Calls) -> None:
    reply = calls.grpc(task_id="native", prompt="a red apple", steps=2, return_images=True)
    assert opened(reply["images"][0]).size == (128, 128)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_formats(calls: Calls, output_format: str) -> None:
    image = opened(calls.grpc(**small(output_format=output_format))["images"][0])
    assert (image.format, image.size, image.mode) == (output_format.upper(), (64, 64), "RGB")
    png = pixels(calls.grpc(**small())["images"][0])
    assert psnr(np.asarray(image), png) > 25


@pytest.mark.parametrize(("width", "height"), [(100, 90), (64, 96), (16, 16), (61, 131), (128, 64)])
def test_an_image_has_exactly_the_size_asked_for(calls: Calls, width: int, height: int) -> None:
    assert opened(calls.grpc(**small(width=width, height=height))["images"][0]).size == (width, height)


def test_several_sizes_at_once(calls: Calls) -> None:
    sizes = [(64, 64), (128, 64), (100, 90), (64, 128), (64, 64), (72, 72)]
    pending = [calls.send(**small(width=width, height=height, steps=4)) for width, height in sizes]
    assert [opened(sent.result()["images"][0]).size for sent in pending] == sizes


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_makes_its_image_again(calls: Calls, model: str) -> None:
    first, again = (calls.grpc(model, **small(seed="123"))["images"] for _ in range(2))
    assert first == again
    assert first != calls.grpc(model, **small(seed="124"))["images"]


def test_image_i_is_the_image_of_seed_plus_i(calls: Calls) -> None:
    together = calls.grpc(**small(seed="40", image_num=3, scheduler="Euler a"))["images"]
    assert len(set(together)) == 3
    for index, image in enumerate(together):
        alone = calls.grpc(**small(seed=str(40 + index), scheduler="Euler a"))["images"][0]
        assert psnr(pixels(alone), pixels(image)) >= 40


def test_a_random_seed_is_told_and_makes_the_image_again(calls: Calls) -> None:
    first, second = (calls.grpc(**small(seed="")) for _ in range(2))
    assert first["seed"] != second["seed"]
    again = calls.grpc(**small(seed=first["seed"]))
    assert again["images"] == first["images"]


def test_an_ensemble_tells_a_random_seed(calls: Calls) -> None:
    assert int(calls.grpc("ensemble", **small(seed="")).get("seed", "")) >= 0


def test_an_ensemble_answers_a_request_for_its_seed_alone(calls: Calls) -> None:
    result = calls.client.infer(
        "ensemble",
        tensors(grpc_client, small(), INPUTS, batched=True),
        outputs=[grpc_client.InferRequestedOutput("reply_seed")],
        client_timeout=WITHIN,
    )
    assert result.as_numpy("reply_seed").item() == b"7"


def test_every_served_field_has_an_effect_on_the_image(calls: Calls) -> None:
    base = small(negative_prompt="blurry")
    variants: list[dict[str, Any]] = [
        {},
        {"prompt": "a green pear"},
        {"negative_prompt": "a banana"},
        {"steps": 5},
        {"cfg_scale": 3.0},
        {"cfg_scale": 1.0},
        {"seed": "8"},
        {"scheduler": "DDIM"},
        {"width": 72},
        {"height": 72},
        {"output_format": "webp"},
    ]
    pending = [calls.send(**{**base, **changes}) for changes in variants]
    images = [sent.result()["images"][0] for sent in pending]
    assert len(set(images)) == len(variants)


def test_images_are_returned_only_where_they_are_asked_for(calls: Calls) -> None:
    reply = calls.grpc(**small(return_images=False))
    assert (reply["images"], reply["images_base64"], reply["is_nsfw"]) == ([], [], [False])


def test_only_requested_outputs_are_returned(calls: Calls) -> None:
    result = calls.client.infer(
        "sd_base",
        tensors(grpc_client, small(), INPUTS, batched=True),
        outputs=[grpc_client.InferRequestedOutput("is_nsfw"), grpc_client.InferRequestedOutput("seed")],
    )
    assert {output.name for output in result.get_response().outputs} == {"is_nsfw", "seed"}


@pytest.mark.parametrize("model", MODELS)
def test_a_prompt_that_is_too_long_is_cut_and_told(calls: Calls, model: str) -> None:
    assert calls.grpc(model, **small(prompt=" ".join(["apple"] * 80 + ["pear"])))["warnings"] == []
    reply = calls.grpc(model, **small(prompt=" ".join(["apple"] * 1300 + ["pear"]), steps=1))
    (warning,) = reply["warnings"]
    assert re.fullmatch(r"prompt: too long, only 16 chunks were used, cut: '.*apple pear'", warning)
    assert len(reply["images"]) == 1


@pytest.mark.parametrize("prompt", ["", "🍎", "汉" * 500, "\0", "\u202e\ufeff", "a" * 10_000])
def test_strange_prompts_are_drawn(calls: Calls, prompt: str) -> None:
    reply = calls.grpc(**small(prompt=prompt, steps=1))
    assert reply["prompt"] == prompt
    assert opened(reply["images"][0]).size == (64, 64)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 151, "steps: 151 is invalid: must be between 1 and 150"),
        ("width", 5000, "width: 5000 is invalid: must be between 16 and 2048"),
        ("cfg_scale", float("nan"), "cfg_scale: nan is invalid"),
        ("task_id", "../etc/passwd", "task_id: '../etc/passwd' is invalid"),
        ("scheduler", "magic", "scheduler: 'magic' is invalid: known: DPM"),
        ("func_name", "t2v", "func_name: 't2v' is invalid: must be one of: t2i"),
        ("prompt", b"\xff", "prompt: b'.xff' is invalid: text must be UTF-8"),
        ("seed", "1e5", "seed: '1e5' is invalid"),
    ],
)
def test_a_bad_field_is_told_in_every_transport(calls: Calls, model: str, field: str, value: Any, message: str) -> None:
    fields = small(**{field: value})
    with pytest.raises(InferenceServerException, match=message) as caught:
        calls.grpc(model, **fields)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match=message) as caught:
        calls.http(model, **fields)
    assert caught.value.status() == "400"


def test_a_schedulers_own_limit_is_an_invalid_argument(calls: Calls) -> None:
    with pytest.raises(InferenceServerException, match="steps: 60 is invalid: the scheduler LCM says") as caught:
        calls.grpc(**small(scheduler="LCM", steps=60))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_bad_field_is_told_to_json(calls: Calls) -> None:
    status, reply = calls.generate("ensemble", {"task_id": "a", "prompt": "b", "steps": -1})
    assert (status, reply) == (
        400,
        {"error": "in ensemble 'ensemble', steps: -1 is invalid: must be between 1 and 150"},
    )


@pytest.mark.parametrize("model", MODELS)
def test_a_misspelt_json_field_is_told(calls: Calls, model: str) -> None:
    body = {"task_id": "a", "prompt": "a red apple", "steps": 2, "stesp": 20, "width": 64, "height": 64}
    status, reply = calls.generate(model, body)
    assert (status, reply.get("warnings")) == (
        200,
        "'stesp' is not a field of this model and was ignored; did you mean steps?",
    ), reply


@pytest.mark.parametrize("model", MODELS)
def test_json_for_controlnets_is_told_where_to_go(calls: Calls, model: str) -> None:
    """Triton itself would make a parameter of it, which nobody reads."""
    status, reply = calls.generate(model, {"task_id": "a", "prompt": "b", "process_func": "canny"})
    assert status == 400
    assert "process_func: 'canny' is invalid: this model has no ControlNets; sd_controlnet has" in reply["error"]


def border(data: bytes) -> np.ndarray[Any, Any]:
    """Return the mean colour of an image's edge, which is background."""
    image = pixels(data).astype(np.float32)
    return np.concatenate([image[:4].reshape(-1, 3), image[-4:].reshape(-1, 3), image[:, :4].reshape(-1, 3)]).mean(0)


@pytest.mark.parametrize(
    ("prompt", "channel"),
    [
        ("a red apple on a blue background", 2),
        ("a red apple on a green background", 1),
        ("a green apple on a red background", 0),
        ("蓝色背景上的红苹果", 2),
    ],
)
def test_the_background_has_the_colour_that_was_asked_for(calls: Calls, prompt: str, channel: int) -> None:
    images = calls.grpc(task_id="background", prompt=prompt, steps=12, seed="11", image_num=3, return_images=True)[
        "images"
    ]
    right = [int(np.argmax(border(image))) == channel for image in images]
    assert sum(right) >= 2, f"the backgrounds are {[border(image).round().tolist() for image in images]}"


def test_a_red_apple_is_red(calls: Calls) -> None:
    images = calls.grpc(
        task_id="apple",
        prompt="a red apple on a white background",
        steps=12,
        seed="21",
        image_num=3,
        return_images=True,
    )["images"]
    centres = [pixels(image)[48:80, 48:80].reshape(-1, 3).mean(0) for image in images]
    assert sum(centre[0] > max(centre[1], centre[2]) + 30 for centre in centres) >= 2, centres
