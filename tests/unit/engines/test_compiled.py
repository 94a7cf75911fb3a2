"""Compiled engine compared with the eager one on the emoji model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import lora_files
from tests.controlnet_files import random_controlnet
from tests.unit.conftest import request_for
from tests.unit.engine_calls import encode, predict
from triton_diffusers.adapters.controlnet import CONTROLNET, ControlNetWeights
from triton_diffusers.adapters.lora import LayerChange, Lora, LoraLayer, LoraLoader, LoraSet
from triton_diffusers.adapters.lora.changes import DenseChange
from triton_diffusers.api.request import LoraChoice
from triton_diffusers.engines import Residuals
from triton_diffusers.engines.compiled import CompiledControlNet, CompiledEngine, load_compiled
from triton_diffusers.engines.compilers import COMPILERS, IncompatibleWeights
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.engines.eager import EagerControlNet, EagerEngine
from triton_diffusers.families.conditioning import STATES
from triton_diffusers.inflight.trial import try_out
from triton_diffusers.prompts import PromptReader, Tokens
from triton_diffusers.settings import Settings

MAPS = Path("/proc/self/maps")
NEAR = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def compiled(settings: Settings, folders: Mapping[str, Path]) -> CompiledEngine:
    return load_compiled(settings, LoadingGraphs("openvino", "float32", folders, {}))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def tokens(engine: EagerEngine, *texts: str) -> list[Tokens]:
    reader = PromptReader(engine.tokenizer, 1)
    return [reader.read(text).chunks[0].tokens for text in texts]


def random_set(engine: EagerEngine, rank: int, *, of_attention: bool = True) -> LoraSet:
    chosen = lora_files.is_linear if of_attention else lambda path: True
    weights = lora_files.random_weights(engine.lora_targets, rank, rank, chosen)
    return LoraSet.of([(Lora((f"rank {rank}", 1, 1), {path: LoraLayer(*pair) for path, pair in weights.items()}), 0.5)])


def changed_set(engine: EagerEngine, path: str = "unet.mid_block.resnets.0.conv1") -> LoraSet:
    """Return a full difference of one layer."""
    difference = torch.randn(engine.lora_targets[path], generator=torch.Generator().manual_seed(0)) * 0.05
    return LoraSet.of([(Lora((path, 1, 1), {}, {path: LayerChange(DenseChange(difference))}), 1.0)])


def controlnet(engine: EagerEngine, seed: int, **kwargs: Any) -> ControlNetWeights:
    network = random_controlnet(engine.family.denoiser_config, seed, **kwargs)
    return ControlNetWeights(((f"{seed}", 1, 1),), dict(network.config), network.state_dict())


def residuals_for(engine: EagerEngine, latents: torch.Tensor, size: float = 0.3) -> Residuals:
    net = engine.make_controlnet(controlnet(engine, 7))
    made = net(latents, torch.ones(len(latents)), {STATES: noise(len(latents), 77, 192)}, torch.zeros(1, 3, 8, 8))
    return tuple(noise(*residual.shape) * size for residual in made)


def test_compiled_and_eager_report_the_same_spec(compiled: CompiledEngine, eager: EagerEngine) -> None:
    assert compiled.family == eager.family
    assert compiled.lora_targets == eager.lora_targets
    assert compiled.optimized
    assert not eager.optimized


@pytest.mark.parametrize(("rank", "clip_skip"), [(0, 1), (1, 2), (4, 4), (16, 1), (0, 4)])
def test_compiled_prompts_match_eager(compiled: CompiledEngine, eager: EagerEngine, rank: int, clip_skip: int) -> None:
    loras = random_set(eager, rank) if rank else None
    prompts = tokens(eager, "", "a red apple", "蓝色背景上的红苹果")
    for chunks in (prompts, prompts[:1]):
        expected = encode(eager, chunks, clip_skip, loras)
        torch.testing.assert_close(encode(compiled, chunks, clip_skip, loras), expected, **NEAR)


@pytest.mark.parametrize(
    ("rows", "height", "width", "ranks"),
    [
        (1, 16, 16, [0]),
        (2, 16, 16, [4, 4]),
        (3, 13, 18, [1, 0, 16]),
        (4, 7, 9, [4, 4, 0, 0]),
        (2, 2, 2, [0, 0]),
        (6, 1, 2, [2, 2, 4, 4, 0, 0]),
        (8, 8, 12, [0, 0, 0, 0, 16, 16, 4, 4]),
    ],
)
def test_compiled_predictions_match_eager(
    compiled: CompiledEngine, eager: EagerEngine, rows: int, height: int, width: int, ranks: list[int]
) -> None:
    latents, states, timesteps = noise(rows, 4, height, width), noise(rows, 77, 192), torch.linspace(999.0, 1.0, rows)
    loras = [random_set(eager, rank) if rank else None for rank in ranks]
    expected = predict(eager, latents, timesteps, states, loras)[0]
    torch.testing.assert_close(predict(compiled, latents, timesteps, states, loras)[0], expected, **NEAR)
    if any(loras):
        assert (expected - predict(eager, latents, timesteps, states)[0]).abs().max() > 0.05


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 18), (2, 2)])
def test_compiled_predictions_with_residuals_match_eager(
    compiled: CompiledEngine, eager: EagerEngine, height: int, width: int
) -> None:
    latents = noise(3, 4, height, width)
    call = latents, torch.tensor([999.0, 500.0, 1.0]), noise(3, 77, 192)
    residuals = residuals_for(eager, latents)
    loras = [random_set(eager, 4), None, None]
    plain = predict(compiled, *call)[0]
    for lora in (None, loras):
        expected, deep = predict(eager, *call, lora, residuals=residuals)
        made = predict(compiled, *call, lora, residuals=residuals)
        torch.testing.assert_close(made[0], expected, **NEAR)
        torch.testing.assert_close(made[1], deep, **NEAR)
        assert (expected - plain).abs().max() > 0.1
    zeros = tuple(torch.zeros_like(residual) for residual in residuals)
    torch.testing.assert_close(predict(compiled, *call, residuals=zeros)[0], plain, rtol=0, atol=1e-6)
    assert torch.equal(predict(compiled, *call)[0], plain), "nothing is left of the residuals"


def test_one_graph_serves_different_controlnets(compiled: CompiledEngine, eager: EagerEngine) -> None:
    """Let them differ in image layers, channel order and precision."""
    both = (
        controlnet(eager, 1),
        controlnet(eager, 2, channels=(8, 24, 40, 72), controlnet_conditioning_channel_order="bgr"),
    )
    half = {name: tensor.half() for name, tensor in both[1].tensors.items()}
    nets = [compiled.make_controlnet(weights) for weights in (both[0], ControlNetWeights((), both[1].config, half))]
    for net, weights, limit in zip(nets, both, (1e-4, 0.01), strict=True):
        assert isinstance(net, CompiledControlNet)
        assert net.nbytes == 4 * sum(tensor.numel() for tensor in weights.tensors.values())
        expected = eager.make_controlnet(weights)
        for rows, height, width in ((2, 16, 16), (3, 13, 18), (1, 2, 2)):
            images = noise(rows, 3, 8 * height, 8 * width).sigmoid()
            states = {STATES: noise(rows, 77, 192)}
            call = noise(rows, 4, height, width), torch.linspace(999.0, 1.0, rows), states, images
            made = net(*call)
            for residual, other in zip(made, expected(*call), strict=True):
                torch.testing.assert_close(residual, other, rtol=0, atol=limit)
            assert max(residual.abs().max() for residual in made) > 0.3


def test_without_a_graph_controlnets_are_eager(settings: Settings, eager: EagerEngine) -> None:
    bare = load_compiled(settings, LoadingGraphs("openvino", "float32", {}, {}))
    weights = controlnet(eager, 3)
    net = bare.make_controlnet(weights)
    assert isinstance(net, EagerControlNet)
    call = noise(2, 4, 4, 6), torch.tensor([9.0, 5.0]), {STATES: noise(2, 77, 192)}, noise(2, 3, 32, 48)
    for residual, other in zip(net(*call), eager.make_controlnet(weights)(*call), strict=True):
        assert torch.equal(residual, other)


def test_controlnets_that_a_graph_does_not_support_are_eager(
    settings: Settings, eager: EagerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise IncompatibleWeights("of another shape")

    engine = load_compiled(settings, LoadingGraphs("openvino", "float32", {CONTROLNET: tmp_path}, {}))
    monkeypatch.setattr(COMPILERS["openvino"], "bind", refuse)
    assert isinstance(engine.make_controlnet(controlnet(eager, 3)), EagerControlNet)


def test_compiled_long_prompts_match_eager(compiled: CompiledEngine, eager: EagerEngine) -> None:
    call = noise(2, 4, 16, 16), torch.tensor([700.0, 3.5]), noise(2, 154, 192)
    torch.testing.assert_close(predict(compiled, *call)[0], predict(eager, *call)[0], **NEAR)


@pytest.mark.parametrize("ranks", [[0, 0, 0], [4, 0, 16]])
def test_predictions_of_the_outermost_layers(compiled: CompiledEngine, eager: EagerEngine, ranks: list[int]) -> None:
    call = noise(3, 4, 13, 18), torch.tensor([999.0, 500.0, 1.0]), noise(3, 77, 192)
    loras = [random_set(eager, rank) if rank else None for rank in ranks]
    prediction, deep = predict(eager, *call, loras)
    torch.testing.assert_close(predict(compiled, *call, loras)[1], deep, **NEAR)
    torch.testing.assert_close(predict(compiled, *call, loras, deep)[0], prediction, **NEAR)
    other = predict(eager, *call, loras, deep * 0.9)
    torch.testing.assert_close(predict(compiled, *call, loras, deep * 0.9)[0], other[0], **NEAR)


def test_results_stay_when_the_next_call_is_made(compiled: CompiledEngine) -> None:
    first = predict(compiled, noise(1, 4, 16, 16), torch.tensor([700.0]), noise(1, 77, 192))[0]
    before = first.clone()
    predict(compiled, noise(1, 4, 16, 16) + 1, torch.tensor([100.0]), noise(1, 77, 192))[0]
    assert torch.equal(first, before)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 18), (2, 2)])
def test_loras_on_convolutions_are_computed_by_the_graphs(
    compiled: CompiledEngine, eager: EagerEngine, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Include layers with strides, shortcuts, upsamplers, and the first and the last layer."""
    loras = [random_set(eager, 2, of_attention=False), None, random_set(eager, 5, of_attention=False)]
    call = noise(3, 4, height, width), torch.tensor([700.0, 3.0, 99.0]), noise(3, 77, 192)
    expected, deep = predict(eager, *call, loras)
    assert not any(compiled.computes_apart(row) for row in loras)
    monkeypatch.setattr(compiled, "_make_eager", None)
    monkeypatch.delitem(vars(compiled), "_eager", raising=False)
    torch.testing.assert_close(predict(compiled, *call, loras)[0], expected, **NEAR)
    torch.testing.assert_close(predict(compiled, *call, loras, deep)[0], expected, **NEAR)
    assert (expected - predict(eager, *call)[0]).abs().max() > 0.05


def test_a_full_difference_is_computed_eagerly(compiled: CompiledEngine, eager: EagerEngine) -> None:
    changed = changed_set(eager)
    call = noise(2, 4, 16, 16), torch.tensor([700.0, 3.0]), noise(2, 77, 192)
    expected = predict(eager, *call, [changed, None])[0]
    torch.testing.assert_close(predict(compiled, *call, [changed, None])[0], expected, **NEAR)
    assert (expected - predict(eager, *call)[0]).abs().max() > 0.01


def test_unsupported_loras_are_computed_apart(compiled: CompiledEngine, settings: Settings, eager: EagerEngine) -> None:
    text = changed_set(eager, "text_encoder.encoder.layers.0.mlp.fc1")
    assert compiled.computes_apart(changed_set(eager))
    assert not any(compiled.computes_apart(loras) for loras in (None, text, random_set(eager, 4)))
    assert not eager.computes_apart(changed_set(eager))
    without = load_compiled(settings, LoadingGraphs("openvino", "float32", {}, {}))
    assert not without.computes_apart(changed_set(eager)), "all is computed by PyTorch"


@pytest.mark.parametrize("name", ["flat", "high-contrast"])
def test_the_models_own_loras(compiled: CompiledEngine, eager: EagerEngine, settings: Settings, name: str) -> None:
    request = request_for(loras=(LoraChoice(f"lora/{name}.safetensors", 0.8),))
    loras = LoraLoader(settings, eager.lora_targets).load(request)
    assert loras is not None
    states = encode(eager, tokens(eager, "", "a red apple"), 1, loras)
    call = noise(2, 4, 16, 16), torch.tensor([700.0, 3.0]), states
    expected = predict(eager, *call, [loras, loras])[0]
    torch.testing.assert_close(predict(compiled, *call, [loras, loras])[0], expected, **NEAR)
    assert (expected - predict(eager, *call)[0]).abs().max() > 0.01


@pytest.mark.parametrize(("height", "width"), [(128, 128), (64, 96), (16, 24)])
def test_compiled_autoencoder_matches_eager(
    compiled: CompiledEngine, eager: EagerEngine, height: int, width: int
) -> None:
    pixels = noise(3, height, width).clamp(-1, 1).numpy()
    torch.testing.assert_close(compiled.encode(pixels), eager.encode(pixels), **NEAR)
    latents = noise(4, height // 8, width // 8)
    np.testing.assert_allclose(compiled.decode(latents), eager.decode(latents), atol=1e-4)


class Noted:
    """Graph that records its calls and releases."""

    def __init__(self, name: str, notes: list[str], output: torch.Tensor) -> None:
        self.name, self.notes, self.output = name, notes, output

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.notes.append(f"{self.name} is called")
        return (self.output,)

    def release(self) -> None:
        self.notes.append(f"{self.name} is released")


def test_autoencoder_and_steps_do_not_hold_memory_together(eager: EagerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr("triton_diffusers.engines.compiled.release_memory", lambda: notes.append("given back"))
    graphs = {name: Noted(name, notes, torch.zeros(1, 3, 8, 8)) for name in ("unet", "vae_encoder", "vae_decoder")}
    engine = CompiledEngine(eager._components, graphs, lambda: eager, lambda weights: None)  # type: ignore[arg-type, return-value]
    for name, use in (
        ("vae_decoder", lambda: engine.decode(torch.zeros(4, 1, 1))),
        ("vae_encoder", lambda: engine.encode(np.zeros((3, 8, 8), np.float32))),
    ):
        notes.clear()
        use()
        begun = notes.index(f"{name} is called")
        assert "unet is released" in notes[: begun - 1]
        assert notes[begun - 1] == "given back"
        assert notes[begun + 1 :] == [f"{name} is released", "given back"]


def test_a_compiled_engine_passes_the_trial_at_a_start(compiled: CompiledEngine, settings: Settings) -> None:
    try_out(compiled, settings)


def test_precise_autoencoder_of_a_compiled_engine_is_eager_in_float32(eager: EagerEngine) -> None:
    """Use PyTorch for values that overflow in the graphs' precision."""
    graphs = {name: Noted(name, [], torch.zeros(1, 3, 8, 8)) for name in ("vae_encoder", "vae_decoder")}
    engine = CompiledEngine(eager._components, graphs, lambda: eager, lambda weights: None)  # type: ignore[arg-type, return-value]
    latents, pixels = noise(4, 2, 2), noise(3, 16, 16).numpy()
    np.testing.assert_array_equal(engine.decode(latents, precise=True), eager.decode(latents))
    assert torch.equal(engine.encode(pixels, precise=True), eager.encode(pixels))


def test_engine_without_graphs_is_eager(settings: Settings, eager: EagerEngine) -> None:
    bare = load_compiled(settings, LoadingGraphs("openvino", "float32", {}, {}))
    call = noise(1, 4, 16, 16), torch.tensor([700.0]), noise(1, 77, 192)
    assert torch.equal(predict(bare, *call)[0], predict(eager, *call)[0])
    latents = noise(4, 16, 16)
    np.testing.assert_array_equal(bare.decode(latents), eager.decode(latents))


def test_weights_of_compiled_graphs_are_not_loaded(compiled: CompiledEngine) -> None:
    components = compiled._components
    for module in (components.denoiser, components.vae):
        assert all(parameter.is_meta for parameter in module.parameters())
    real = [name for name, parameter in components.text_encoder.named_parameters() if not parameter.is_meta]
    assert real == ["embeddings.token_embedding.weight"]
