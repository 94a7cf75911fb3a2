"""Eager engine on the emoji model: rows do not affect each other."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.engine_calls import encode, predict
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.errors import EngineFailure
from triton_diffusers.prompts import PromptReader, Tokens


@pytest.fixture
def engine(components: Components) -> EagerEngine:
    return EagerEngine(components)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def tokens(engine: EagerEngine, *texts: str) -> list[Tokens]:
    reader = PromptReader(engine.tokenizer, 1)
    return [reader.read(text).chunks[0].tokens for text in texts]


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_batched_prompts_equal_single_prompts(engine: EagerEngine, clip_skip: int) -> None:
    prompts = tokens(engine, "", "a red apple", "蓝色背景上的红苹果")
    together = encode(engine, prompts, clip_skip)
    assert together.shape[:2] == (3, 77)
    for row, prompt in zip(together, prompts, strict=True):
        torch.testing.assert_close(row[None], encode(engine, [prompt], clip_skip), rtol=0, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_a_mask_is_used_where_the_text_encoder_wants_one(engine: EagerEngine, components: Components) -> None:
    """Mask padding only if the config wants it; Stable Diffusion's own do not."""
    (prompt,) = tokens(engine, "a red apple")
    encoder = components.text_encoder
    plain = encode(engine, [prompt], 1)
    try:
        encoder.config.use_attention_mask = True
        masked = encode(engine, [prompt], 1)
    finally:
        del encoder.config.use_attention_mask
    with torch.inference_mode():
        mask = torch.tensor([prompt.attention_mask])
        expected = encoder(torch.tensor([prompt.ids]), attention_mask=mask).last_hidden_state
    assert torch.equal(masked, expected)
    assert not torch.equal(masked, plain)


def test_batched_predictions_equal_single_predictions(engine: EagerEngine) -> None:
    latents, timesteps = noise(3, 4, 8, 12), torch.tensor([999.0, 500.0, 1.0])
    states = encode(engine, tokens(engine, "one", "two", "three"), 1)
    together = predict(engine, latents, timesteps, states)[0]
    assert together.shape == latents.shape
    assert together.dtype == torch.float32
    for row in range(3):
        alone = predict(engine, latents[row : row + 1], timesteps[row : row + 1], states[row : row + 1])[0]
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-4)


def test_decode_matches_the_autoencoder(engine: EagerEngine, components: Components) -> None:
    latents = noise(4, 8, 12)
    decoded = engine.decode(latents)
    assert decoded.shape == (3, 64, 96)
    assert decoded.dtype == np.float32
    with torch.inference_mode():
        expected = components.vae.decode(latents[None] / components.vae.config.scaling_factor).sample[0]
    np.testing.assert_allclose(decoded, expected.numpy(), atol=1e-5)


def test_without_a_checker_nothing_is_unsafe(components: Components) -> None:
    from dataclasses import replace

    pixels = np.zeros((64, 64, 3), np.uint8)
    assert EagerEngine(replace(components, safety_checker=None)).is_unsafe(pixels) is False
    assert EagerEngine(replace(components, feature_extractor=None)).is_unsafe(pixels) is False


def test_is_unsafe_follows_the_checkers_thresholds(components: Components) -> None:
    """Flag everything with minimal thresholds, and nothing with maximal ones."""
    engine, checker = EagerEngine(components), components.safety_checker
    before = checker.concept_embeds_weights.data.clone()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    shown = pixels.copy()
    try:
        checker.concept_embeds_weights.data.fill_(-2.0)
        assert engine.is_unsafe(pixels) is True
        checker.concept_embeds_weights.data.fill_(2.0)
        checker.special_care_embeds_weights.data.fill_(2.0)
        assert engine.is_unsafe(pixels) is False
    finally:
        checker.concept_embeds_weights.data.copy_(before)
    assert np.array_equal(pixels, shown)


def overflowing(components: Components, dtype: torch.dtype) -> Components:
    """Return the emoji model with an autoencoder that overflows in half precision only."""
    vae = copy.deepcopy(components.vae)
    with torch.no_grad():
        for layer in (vae.decoder.conv_in, vae.encoder.conv_in):
            layer.weight.mul_(3e5).clamp_(-6e4, 6e4)
            layer.bias.mul_(3e5).clamp_(-6e4, 6e4)
    return replace(components, denoiser=copy.deepcopy(components.denoiser).to(dtype), vae=vae.to(dtype))


def test_an_overflowing_autoencoder_is_exact_in_float32(components: Components) -> None:
    """Retry in float32, as needed for some Stable Diffusion 1.x autoencoders in float16."""
    latents, pixels = noise(4, 4, 4), np.full((3, 32, 32), 0.5, np.float32)
    broken = overflowing(components, torch.float16)
    engine = EagerEngine(broken)
    assert not np.isfinite(engine.decode(latents)).all()
    assert not engine.encode(pixels).isfinite().all()
    vae = copy.deepcopy(broken.vae).float()
    with torch.inference_mode():
        expected = vae.decode(latents[None] / vae.config.scaling_factor).sample[0].numpy()
        moments = vae.encode(torch.from_numpy(pixels)[None]).latent_dist
    np.testing.assert_allclose(engine.decode(latents, precise=True), expected, atol=1e-4)
    torch.testing.assert_close(engine.encode(pixels, precise=True)[0], moments.mean[0] * vae.config.scaling_factor)
    assert broken.vae.dtype == torch.float16, "the engine's own stays as it is"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0])
def test_a_safety_checker_without_a_verdict_lets_nothing_pass(
    components: Components, dtype: torch.dtype, value: float
) -> None:
    """The checker's own answer would be that all is well: such embeddings are similar to no concept."""
    checker = copy.deepcopy(components.safety_checker).to(dtype)
    with torch.no_grad():
        checker.visual_projection.weight.fill_(value)
        checker.concept_embeds_weights.fill_(2.0)
    engine = EagerEngine(replace(components, safety_checker=checker))
    with pytest.raises(EngineFailure, match="safety checker gave"):
        engine.is_unsafe(np.zeros((64, 64, 3), np.uint8))
