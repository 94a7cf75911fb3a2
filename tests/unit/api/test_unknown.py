"""Warnings about names in a request that are not fields."""

from __future__ import annotations

import pytest

from triton_diffusers.api.contract import CONTRACTS, INPUT_BY_NAME, INPUTS
from triton_diffusers.api.synonyms import SYNONYMS
from triton_diffusers.api.unknown import unknown_fields


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("stesp", "'stesp' is not a field of this model and was ignored; did you mean steps?"),
        ("Prompt", "'Prompt' is not a field of this model and was ignored; did you mean prompt?"),
        ("xyzzy", "'xyzzy' is not a field of this model and was ignored"),
        ("\ud800\n", "'\\ud800\\n' is not a field of this model and was ignored"),
        ("s" * 10_000, f"'{'s' * 78}… is not a field of this model and was ignored"),
        ("steps", "steps: sent as a parameter and ignored; send it as an input"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_known_one(name: str, warning: str) -> None:
    assert unknown_fields([name], INPUTS) == (warning,)


def test_warnings_are_bounded() -> None:
    told = unknown_fields([f"name-{number}" for number in range(1000)], INPUTS)
    assert len(told) == 9
    assert told[-1] == "names that are not fields of this model and were ignored: 992 more"


def test_tritons_own_parameters_give_no_warning() -> None:
    assert unknown_fields([], INPUTS) == ()
    assert unknown_fields(["triton_enable_empty_final_response"], INPUTS) == ()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("num_inference_steps", "; did you mean steps?"),
        ("numInferenceSteps", "; did you mean steps?"),
        ("guidance_scale", "; did you mean cfg_scale?"),
        ("cfg", "; did you mean cfg_scale?"),
        ("sampler_name", "; did you mean scheduler?"),
        ("sampler_index", "; did you mean scheduler?"),
        ("size", "; did you mean width and height?"),
        ("n", "; did you mean image_num?"),
        ("batch_size", "; did you mean image_num?"),
        ("n_iter", "; did you mean image_num?"),
        ("image_url", "; did you mean image_link or image_base64?"),
        ("init_images", "; did you mean image_link or image_base64?"),
        ("mask_image", "; did you mean mask_link or mask_base64?"),
        ("strength", "; did you mean denoising_strength?"),
        ("denoise", "; did you mean denoising_strength?"),
        ("negative", "; did you mean negative_prompt?"),
        ("response_format", "; did you mean use_base64?"),
        ("CLIP_stop_at_last_layers", "; did you mean clip_skip?"),
        ("model", "; the server draws with the model directory that it was started with"),
        ("sd_model_checkpoint", "; the server draws with the model directory that it was started with"),
        ("user", ""),
        ("moderation", ""),
        ("quality", "; did you mean output_quality?"),
    ],
)
def test_a_name_of_another_api_is_told_with_the_field_for_it(name: str, hint: str) -> None:
    assert unknown_fields([name], INPUTS) == (f"'{name}' is not a field of this model and was ignored{hint}",)


def test_a_field_of_another_model_is_not_suggested() -> None:
    (warning,) = unknown_fields(["preprocessor"], INPUTS)
    assert "process_func" not in warning
    (warning,) = unknown_fields(["preprocessor"], CONTRACTS["sd_controlnet"].inputs)
    assert warning.endswith("did you mean process_func?")


def test_every_synonym_is_of_a_field_and_is_not_one() -> None:
    assert {field for fields in SYNONYMS.values() for field in fields} <= INPUT_BY_NAME.keys()
    assert not SYNONYMS.keys() & INPUT_BY_NAME.keys()
