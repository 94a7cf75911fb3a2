"""Requests are complete before they are sent."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from triton_diffusers.api.contract import CONTRACTS, INPUTS, TRANSLATOR_WARNINGS
from triton_diffusers.api.decode import read_values
from triton_diffusers_client import InvalidRequestError
from triton_diffusers_client.request import Request
from triton_diffusers_client.triton.tensors import encode


def tensors_of(request: Request) -> dict[str, Any]:
    return encode(request.values, request.fields, batched=True)


def value_of(request: Request, name: str) -> Any:
    (value,) = tensors_of(request)[name].ravel().tolist()
    return value


def test_the_server_understands_it() -> None:
    request = Request.build("sd_base", "a red apple", {"steps": 3, "seed": 7, "cfg_scale": 2.55, "task_id": "one"})
    asked = {
        "task_id": "one",
        "prompt": "a red apple",
        "steps": 3,
        "seed": "7",
        "cfg_scale": 2.55,
        "return_images": True,
    }
    defaults = {field.name: field.default for field in INPUTS}
    assert read_values(tensors_of(request), INPUTS) == defaults | asked


def test_images_come_back_unless_unwanted() -> None:
    assert value_of(Request.build("m", "x", {}), "return_images") is True
    assert value_of(Request.build("m", "x", {"return_images": False}), "return_images") is False


@pytest.mark.parametrize("seed", [None, "", -1, "-1"])
def test_a_random_seed_is_picked_here_so_that_a_retry_draws_the_same(seed: Any) -> None:
    seeds = {int(value_of(Request.build("m", "x", {"seed": seed}), "seed")) for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("seed", [0, 2**64 - 1, "18446744073709551615"])
def test_a_given_seed_is_kept(seed: Any) -> None:
    assert int(value_of(Request.build("m", "x", {"seed": seed}), "seed")) == int(seed)


@pytest.mark.parametrize("seed", [1.0, True, b"1"])
def test_a_seed_is_a_number_or_text(seed: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"^seed: "):
        Request.build("m", "x", {"seed": seed})


def test_task_ids_are_new() -> None:
    ids = {Request.build("m", "x", {}).task_id for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", task_id) for task_id in ids)


@pytest.mark.parametrize(
    ("model", "controlled"),
    [
        ("sd_base", "sd_controlnet"),
        ("ensemble", "ensemble_controlnet"),
        ("sd_controlnet", "sd_controlnet"),
        ("mine", "mine"),
    ],
)
def test_options_of_controlnets_choose_the_model_that_takes_them(model: str, controlled: str) -> None:
    options = {"control_image": b"image", "control_scale": [0.5, 1], "process_func": None}
    request = Request.build(model, "x", options)
    assert request.models == (controlled,)
    values = read_values(tensors_of(request), CONTRACTS["sd_controlnet"].inputs)
    assert (values["control_image"], values["control_scale"], values["process_func"]) == ((b"image",), (0.5, 1), ())


@pytest.mark.parametrize("model", ["sd_base", "ensemble", "sd_controlnet", "ensemble_controlnet"])
def test_without_them_each_model_gets_all_of_its_own_fields(model: str) -> None:
    request = Request.build(model, "x", {"controlnet_path": None})
    own = [field.name for field in CONTRACTS[model].inputs if field != TRANSLATOR_WARNINGS]
    assert (request.models, list(tensors_of(request))) == ((model,), own)


def test_an_unknown_option_is_an_error_that_helps() -> None:
    with pytest.raises(TypeError, match="'step'; did you mean 'steps'"):
        Request.build("m", "x", {"step": 3})
    with pytest.raises(TypeError, match="'prompt'"):
        Request.build("m", "x", {"prompt": "y"})


def test_without_a_model_the_ensemble_comes_first() -> None:
    assert Request.build(None, "x", {}).models == ("ensemble", "sd_base")
    controlled = Request.build(None, "x", {"process_func": "canny", "image": b"a"})
    assert controlled.models == ("ensemble_controlnet", "sd_controlnet")
    assert "control_scale" in tensors_of(controlled)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("num_inference_steps", "'steps'"),
        ("guidance_scale", "'cfg_scale'"),
        ("sampler_name", "'scheduler'"),
        ("size", "'width' and 'height'"),
        ("n", "'image_num'"),
        ("image_url", "'image'"),
        ("init_image", "'image'"),
        ("strength", "'denoising_strength'"),
        ("negative", "'negative_prompt'"),
    ],
)
def test_an_option_of_another_library_is_told_with_the_one_for_it(name: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"^unknown option '{name}'; did you mean {hint}\\?$"):
        Request.build("m", "x", {name: 1})


def test_a_numpy_number_is_a_seed() -> None:
    assert value_of(Request.build("m", "x", {"seed": np.int64(7)}), "seed") == b"7"
