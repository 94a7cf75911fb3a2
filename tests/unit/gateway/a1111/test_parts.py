"""Samplers, texts of parameters and masks, by themselves."""

from __future__ import annotations

import base64
import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.gateway.a1111.calls import encoded
from triton_diffusers.api.request import GenerationRequest, OutputFormat
from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.gateway.dialects.a1111 import translate as translation
from triton_diffusers.gateway.dialects.a1111.infotext import pairs_of, texts_of
from triton_diffusers.gateway.dialects.a1111.options import Options
from triton_diffusers.gateway.dialects.a1111.pixels import MaskOptions, pasted, prepare
from triton_diffusers.gateway.dialects.a1111.samplers import contract_scheduler, sampler_views, split_scheduler
from triton_diffusers.gateway.dialects.a1111.translate import translate
from triton_diffusers.gateway.submission import JobOrigin, new_job
from triton_diffusers.images.encode import encode
from triton_diffusers.images.metadata import metadata_of
from triton_diffusers.sampling.schedulers import SCHEDULERS
from triton_diffusers.settings import Settings


def test_every_listed_sampler_and_alias_can_be_asked_for() -> None:
    for view in sampler_views():
        for name in (view["name"], *view["aliases"]):
            chosen = contract_scheduler(name, "uniform")
            assert (chosen, chosen in SCHEDULERS) == (view["name"], True)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedulers_name_survives_being_split(name: str) -> None:
    sampler, label = split_scheduler(name)
    assert contract_scheduler(sampler, "uniform" if label == "Automatic" else label) == name


@pytest.mark.parametrize("kind", OutputFormat)
def test_the_parameters_that_the_engine_writes_are_read(kind: OutputFormat) -> None:
    request = GenerationRequest(
        task_id="a", prompt="a, b: c\nd", negative_prompt='e "f"', width=64, height=32, seed=7, scheduler="LMS Karras"
    )
    metadata = metadata_of(request, 0, "paper, or not")
    image = encode(np.zeros((32, 64, 3), np.uint8), kind, metadata)
    text = texts_of("image", image).parameters
    assert text == metadata.parameters
    pairs = pairs_of(text)
    assert (pairs["Prompt"], pairs["Negative prompt"], pairs["Size"]) == ("a, b: c\nd", 'e "f"', "64x32")
    assert (pairs["Sampler"], pairs["Seed"], pairs["Model"]) == ("LMS Karras", "7", "paper, or not")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_searched_for_pairs(text: str) -> None:
    assert isinstance(pairs_of(text), dict)


def test_a_text_of_quotes_takes_no_long_search() -> None:
    assert pairs_of('Steps: "' * 20_000)["Steps"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 39), st.integers(0, 39), st.integers(0, 50),
    st.integers(1, 64), st.integers(1, 64),
)  # fmt: skip
def test_the_part_that_is_drawn_holds_the_mask_and_lies_in_the_image(
    width: int, height: int, left: int, top: int, padding: int, target_width: int, target_height: int
) -> None:
    mask = Image.new("L", (width, height))
    mask.putpixel((left % width, top % height), 255)
    data = encoded(width, height)
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    options = MaskOptions(padding=padding)
    prepared = prepare(data, buffer.getvalue(), options, (target_width, target_height), Settings())
    assert prepared.patch is not None
    box = prepared.patch.box
    assert 0 <= box[0] <= left % width < box[2] <= width
    assert 0 <= box[1] <= top % height < box[3] <= height
    drawn = encoded(target_width, target_height, "lime")
    whole = np.asarray(Image.open(io.BytesIO(pasted(drawn, prepared.patch, 95, Settings()))))
    assert whole.shape == (height, width, 3)
    assert tuple(whole[top % height, left % width]) == (0, 255, 0)


ODD = [None, [], {}, "", "x", -1, 0, 2**70, 1e308, 0.5, True, [[]], [{}], {"a": []}, {"args": [[1]]}, {"args": 7}]
SETTINGS = Settings()
OPTIONS = Options({"CLIP_stop_at_last_layers": 1, "samples_format": "png", "jpeg_quality": 95}, None)
IMAGE = base64.b64encode(encoded(8, 8)).decode()


@pytest.mark.parametrize("field", sorted(translation.KNOWN))
def test_odd_values_are_taken_or_refused(field: str) -> None:
    """Any other exception is a bug, and would be answered as one."""
    for value in [*ODD, "\ud800"]:
        for document in ({field: value}, {"init_images": [IMAGE], "mask": IMAGE, field: value}):
            with contextlib.suppress(InvalidRequest, NotFound):
                made = translate(document, OPTIONS, {}, SETTINGS, with_image="mask" in document)
                new_job(made.fields, JobOrigin(dialect="a1111"), SETTINGS, model="ensemble", files=made.files)
