"""The eager engine with LoRAs computes what it would with weights that have them merged in."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import lora_files
from tests.unit.engine_calls import encode, predict
from triton_diffusers.adapters.lora import TEXT_ENCODER, UNET, Lora, LoraLayer, LoraSet, lora_modules
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.prompts import PromptReader


@pytest.fixture
def engine(components: Components) -> EagerEngine:
    return EagerEngine(components)


def some(engine: EagerEngine, name: str, rank: int) -> LoraSet:
    weights = lora_files.random_weights(engine.lora_targets, rank, seed=rank)
    return LoraSet.of([(Lora((name, 1, 1), {path: LoraLayer(*pair) for path, pair in weights.items()}), 1.0)])


def merged(name: str, model: Any, loras: LoraSet) -> Any:
    copy = deepcopy(model)
    for path, layer in lora_modules(name, copy):
        added = loras.layers[path]
        layer.weight.data += torch.tensordot(added.up, added.down, 1)
    return copy


def test_the_unet(engine: EagerEngine, components: Components) -> None:
    one, other = some(engine, "one", 2), some(engine, "other", 3)
    generator = torch.Generator().manual_seed(0)
    latents, states = (torch.randn(3, *shape, generator=generator) for shape in ((4, 8, 12), (77, 192)))
    timesteps = torch.tensor([900.0, 500.0, 20.0])
    plain = predict(engine, latents, timesteps, states)[0]
    changed = predict(engine, latents, timesteps, states, [one, other, None])[0]
    for row, loras in enumerate((one, other)):
        with torch.inference_mode():
            unet = merged(UNET, components.denoiser, loras)
            expected = unet(latents[row][None], timesteps[row], encoder_hidden_states=states[row][None]).sample
        torch.testing.assert_close(changed[row][None], expected, rtol=0, atol=1e-4)
        assert (changed[row] - plain[row]).abs().max() > 0.1
    torch.testing.assert_close(changed[2], plain[2], rtol=0, atol=1e-4)
    torch.testing.assert_close(predict(engine, latents, timesteps, states)[0], plain, rtol=0, atol=0)


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_the_text_encoder(engine: EagerEngine, components: Components, clip_skip: int) -> None:
    loras = some(engine, "one", 2)
    reader = PromptReader(engine.tokenizer, 1)
    tokens = [reader.read(prompt).chunks[0].tokens for prompt in ("", "a red apple")]
    plain = encode(engine, tokens, clip_skip)
    changed = encode(engine, tokens, clip_skip, loras)
    other = replace(components, text_encoders={TEXT_ENCODER: merged(TEXT_ENCODER, components.text_encoder, loras)})
    expected = encode(EagerEngine(other), tokens, clip_skip)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-4)
    assert (changed - plain).abs().max() > 0.1


def test_targets_have_the_shapes_of_the_weights(engine: EagerEngine) -> None:
    targets = engine.lora_targets
    assert targets["unet.conv_in"] == (96, 4, 3, 3)
    assert targets["text_encoder.encoder.layers.0.mlp.fc1"] == (768, 192)
    assert {path.partition(".")[0] for path in targets} == {UNET, TEXT_ENCODER}
