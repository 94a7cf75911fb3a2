"""Guidance scale as a UNet input: diffusers' embedding, one row per image, and unsupported options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.unit.conftest import request_for
from tests.unit.fake_engine import FakeEngine
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.inflight.guidance import embed_guidance
from triton_diffusers.inflight.text import PromptEncoder
from triton_diffusers.inflight.trial import try_out
from triton_diffusers.settings import Settings


class DistilledEngine(FakeEngine):
    """Engine whose UNet takes guidance embeddings of 256 numbers."""

    guidance_width = 256

    def predict(self, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        latents, guidance = arguments[0], arguments[-1]
        assert guidance is not None, "a compiled graph has to have all of its inputs"
        assert guidance.shape == (len(latents), 256)
        return super().predict(*arguments)


def test_the_trial_of_an_engine_has_guidance() -> None:
    try_out(DistilledEngine(), Settings())


@pytest.mark.parametrize("scale", [1.0, 2.0, 7.5, 30.0])
def test_the_embedding_is_that_of_diffusers(scale: float) -> None:
    expected = StableDiffusionPipeline.get_guidance_scale_embedding(None, torch.tensor([scale - 1.0]), 256)
    found = embed_guidance(DistilledEngine(), request_for("a", guidance_scale=scale))
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)  # sines of thousands, in float32


def test_other_models_have_no_embedding() -> None:
    assert embed_guidance(FakeEngine(), request_for("a", guidance_scale=7.0)) is None


@pytest.mark.parametrize(("engine", "rows"), [(FakeEngine(), 2), (DistilledEngine(), 1)])
def test_an_image_has_one_row_without_classifier_free_guidance(engine: FakeEngine, rows: int) -> None:
    request = request_for("a", negative_prompt="b", guidance_scale=7.0)
    assert PromptEncoder(engine, Settings()).encode(request, None, []).rows == rows


def test_joined_prompts_are_refused() -> None:
    request = request_for("a AND b", guidance_scale=7.0)
    with pytest.raises(InvalidRequest, match=r"2 prompts joined by AND.*this model's guidance is part of its UNet"):
        PromptEncoder(DistilledEngine(), Settings()).encode(request, None, [])
