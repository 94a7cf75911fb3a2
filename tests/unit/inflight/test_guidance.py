"""Guidance scale as a UNet input: diffusers' embedding, one row per image, and unsupported options."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.unit.conftest import request_for
from tests.unit.fake_engine import FAMILY, FakeEngine
from triton_diffusers.engines import Batch
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.families.guidance import GUIDANCE, Distilled
from triton_diffusers.inflight.text import PromptEncoder
from triton_diffusers.inflight.trial import try_out
from triton_diffusers.settings import Settings

SIZE = (64, 64)


class DistilledEngine(FakeEngine):
    """Engine whose UNet takes guidance embeddings of 256 numbers."""

    family = replace(FAMILY, guidance=Distilled(256))

    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        assert batch.inputs[GUIDANCE].shape == (len(batch), 256)
        return super().predict(batch)


def test_the_trial_of_an_engine_has_guidance() -> None:
    try_out(DistilledEngine(), Settings())


@pytest.mark.parametrize("scale", [1.0, 2.0, 7.5, 30.0])
def test_the_embedding_is_that_of_diffusers(scale: float) -> None:
    expected = StableDiffusionPipeline.get_guidance_scale_embedding(None, torch.tensor([scale - 1.0]), 256)
    found = DistilledEngine.family.shared_inputs(request_for("a", guidance_scale=scale), SIZE)[GUIDANCE]
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)  # sines of thousands, in float32


def test_other_models_have_no_embedding() -> None:
    assert FAMILY.shared_inputs(request_for("a", guidance_scale=7.0), SIZE) == {}


@pytest.mark.parametrize(("engine", "rows"), [(FakeEngine(), 2), (DistilledEngine(), 1)])
def test_an_image_has_one_row_without_classifier_free_guidance(engine: FakeEngine, rows: int) -> None:
    request = request_for("a", negative_prompt="b", guidance_scale=7.0)
    assert PromptEncoder(engine, Settings()).encode(request, SIZE, None, []).rows == rows


def test_joined_prompts_are_refused() -> None:
    request = request_for("a AND b", guidance_scale=7.0)
    with pytest.raises(InvalidRequest, match=r"2 prompts joined by AND.*this model's guidance is part of its UNet"):
        PromptEncoder(DistilledEngine(), Settings()).encode(request, SIZE, None, [])
