"""Requests are checked, and become jobs that draw the same image each time they run."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from triton_diffusers.api.contract import CONTRACTS
from triton_diffusers.api.decode import decode_request
from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.errors import InvalidImage, InvalidRequest
from triton_diffusers.gateway.fields import values_from_json
from triton_diffusers.gateway.inputs import join_inputs
from triton_diffusers.gateway.jobs.job import NewJob
from triton_diffusers.gateway.submission import JobOrigin, model_for, new_job
from triton_diffusers.gateway.work import work_of_parameters
from triton_diffusers.settings import Settings

PICTURE = base64.b64encode(b"a picture").decode()
ORIGIN = JobOrigin(dialect="native", traceparent="00-a", idempotency_key="k", fingerprint="f", waiting=True)


def submitted(**fields: Any) -> NewJob:
    document = {"prompt": "an apple", **fields}
    return new_job(document, ORIGIN, Settings(), model=model_for(document))


def test_a_job_has_what_the_request_says_and_a_seed() -> None:
    job = submitted(task_id="mine", steps=10, width=256, height=128, image_num=3)
    assert (job.model, job.label, job.images, job.dialect) == ("ensemble", "mine", 3, "native")
    assert (job.traceparent, job.idempotency_key, job.fingerprint, job.waiting) == ("00-a", "k", "f", True)
    fields = dict(job.request["fields"])
    assert 0 <= int(fields.pop("seed")) < 2**64
    assert fields == {
        "prompt": "an apple",
        "steps": 10,
        "width": 256,
        "height": 128,
        "image_num": 3,
        "return_images": True,
        "store_images": False,
    }
    assert job.work == pytest.approx(3 * 10 * 256 * 128 / 1e6)
    assert job.request["image_steps"] == 30


def test_seeds_are_drawn_once_and_differ_between_jobs() -> None:
    seeds = {submitted(seed=seed).request["fields"]["seed"] for seed in ("", "-1", -1, None)}
    assert len(seeds) == 4
    assert submitted(seed=7).request["fields"]["seed"] == "7"


def test_a_missing_task_id_is_made_up() -> None:
    assert submitted().label != submitted().label
    assert len(submitted().label) == 16


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({"cfg_scale": 1}, 0.5),
        ({"func_name": "i2i", "image_base64": PICTURE, "denoising_strength": 0.5}, 0.5),
        ({"func_name": "i2i", "image_base64": PICTURE, "denoising_strength": 0}, 0.1),
        ({"controlnet_path": ["a", "b"], "image_base64": PICTURE}, 1.7),
    ],
)
def test_work_is_what_the_denoiser_does(fields: dict[str, Any], factor: float) -> None:
    plain = submitted(steps=10, width=64, height=64)
    assert submitted(steps=10, width=64, height=64, **fields).work == pytest.approx(plain.work * factor)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cfg_scale": 1},
        {"func_name": "i2i", "image_base64": PICTURE, "denoising_strength": 0.5},
        {"func_name": "outpaint", "image_base64": PICTURE, "expand": [8, 16, 32, 64]},
        {"controlnet_path": ["a", "b"], "image_base64": PICTURE},
    ],
)
def test_work_is_known_before_and_the_same_afterwards(fields: dict[str, Any]) -> None:
    document = {"prompt": "a", "task_id": "a", "steps": 10, "width": 64, "height": 32, "image_num": 2, **fields}
    job = new_job(document, ORIGIN, Settings(), model=model_for(document))
    contract = CONTRACTS[job.model].inputs
    request = decode_request(values_from_json(document, contract), Settings(), ModelDefaults(side=512))
    assert work_of_parameters(request.to_values(0), 2).megapixel_steps == pytest.approx(job.work)


@pytest.mark.parametrize("field", ["controlnet_path", "control_scale", "control_image_link", "return_control_image"])
def test_fields_of_controlnets_choose_their_model(field: str) -> None:
    assert model_for({field: "x"}) == "ensemble_controlnet"
    assert model_for({field: None}) == "ensemble"
    assert model_for({field: "x"}, "sd_base") == "sd_base"


def test_a_base_model_refuses_fields_of_controlnets() -> None:
    with pytest.raises(InvalidRequest, match=r"controlnet_path: .* is invalid: this model has no ControlNets"):
        new_job({"prompt": "a", "controlnet_path": "x"}, ORIGIN, Settings(), model="sd_base")


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="model: 'sdxl' is invalid: must be one of: ensemble, "):
        model_for({}, "sdxl")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"steps": 900}, "steps: 900 is invalid: must be between 1 and 150"),
        ({"task_id": "../x"}, "task_id: '../x' is invalid"),
        ({"save_dir": "../x"}, "save_dir: '../x' is invalid"),
        ({"func_name": "i2i"}, "i2i needs exactly one of the three"),
        ({"model": "x"}, None),
    ],
)
def test_invalid_requests_are_refused_before_they_are_accepted(fields: dict[str, Any], error: str | None) -> None:
    if error is None:
        assert submitted(**fields).request["warnings"] != ()
        return
    with pytest.raises(InvalidRequest, match=error.replace("(", r"\(")):
        submitted(**fields)


def test_an_invalid_image_is_told_apart() -> None:
    with pytest.raises(InvalidImage, match="image_base64: '!' is invalid"):
        submitted(func_name="i2i", image_base64="!")


def test_unknown_fields_are_told() -> None:
    assert submitted(sampler="x").request["warnings"] == (
        "'sampler' is not a field of this model and was ignored; did you mean scheduler?",
    )


def test_ensembles_take_use_translate_and_models_refuse_it() -> None:
    assert submitted(use_translate=True).request["fields"]["use_translate"] == [True]
    with pytest.raises(InvalidRequest, match="use_translate: True is invalid"):
        new_job({"prompt": "a", "use_translate": True}, ORIGIN, Settings(), model="sd_base")


def test_input_images_are_kept_beside_the_request_and_joined_again() -> None:
    many = [base64.b64encode(b"%d" % number).decode() for number in range(4)]
    document = {
        "prompt": "a",
        "func_name": "inpaint",
        "image_base64": PICTURE,
        "mask_link": "https://example.com/mask.png",
        "controlnet_path": ["c"] * 4,
        "control_image_base64": many,
    }
    job = new_job(document, ORIGIN, Settings(), model="ensemble_controlnet")
    assert not {"image_base64", "mask_link", "control_image_base64"} & job.request["fields"].keys()
    fields = CONTRACTS["ensemble_controlnet"].inputs
    values = join_inputs(job.request["fields"], job.inputs, fields)
    assert values["image_base64"] == PICTURE.encode()
    assert values["mask_link"] == b"https://example.com/mask.png"
    assert values["control_image_base64"] == tuple(text.encode() for text in many)
    assert list(values["controlnet_path"]) == ["c"] * 4
    assert values.keys() == {field.name for field in fields}


def test_a_timeout_bounds_the_wait_too() -> None:
    assert submitted(timeout_seconds=30).max_wait_seconds == 30
    assert submitted().max_wait_seconds is None


def test_jobs_of_one_request_have_keys_of_their_own() -> None:
    assert [ORIGIN.numbered(number).idempotency_key for number in (0, 1)] == ["k/0", "k/1"]
    assert JobOrigin(dialect="native").numbered(1).idempotency_key == ""
