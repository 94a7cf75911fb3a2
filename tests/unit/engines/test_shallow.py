"""Outermost layers on deep features of the same step, compared with the whole UNet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from tests import lora_files
from tests.unit.engine_calls import predict
from triton_diffusers.adapters.lora import UNET, Lora, LoraLayer, LoraSet, lora_modules
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.graphs.unet import shallow_unet_graph
from triton_diffusers.families.conditioning import STATES
from triton_diffusers.families.unet import ShallowUNet, predict_whole

# The last up block, and attention of SD 1.x or SD 2.x.
STYLES = {
    "1.5": ("CrossAttnUpBlock2D", {"attention_head_dim": 2, "use_linear_projection": False}),
    "2.1": ("CrossAttnUpBlock2D", {"attention_head_dim": [2, 4], "use_linear_projection": True}),
    "plain": ("UpBlock2D", {"attention_head_dim": 2}),
}


def tiny(style: str, layers: int = 1) -> UNet2DConditionModel:
    torch.manual_seed(0)
    last, options = STYLES[style]
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", last),
        cross_attention_dim=24,
        norm_num_groups=8,
        **options,
    )
    return unet.eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("layers", [1, 2])
@torch.inference_mode()
def test_shallow_and_deep_parts_equal_the_unet(style: str, layers: int) -> None:
    unet = tiny(style, layers)
    shallow = ShallowUNet(unet)
    call = noise(3, 4, 13, 8), torch.tensor([999.0, 500.0, 1.0]), {STATES: noise(3, 77, 24)}
    prediction, deep = predict_whole(unet, *call)
    assert torch.equal(prediction, unet(call[0], call[1], call[2][STATES]).sample)
    assert deep.shape == (3, shallow.deep_channels, 13, 8)
    assert torch.equal(shallow(*call, deep), prediction)
    assert not torch.equal(shallow(*call, deep * 0.9), prediction)
    assert not torch.equal(shallow(call[0] * 0.9, *call[1:], deep), prediction)


@pytest.mark.parametrize("style", STYLES)
def test_layers_bear_the_names_that_they_have_in_the_unet(style: str) -> None:
    unet = tiny(style)
    everywhere = dict(lora_modules(UNET, unet))
    outermost = dict(lora_modules(UNET, ShallowUNet(unet)))
    assert all(everywhere[path] is layer for path, layer in outermost.items())
    assert {"unet.conv_in", "unet.up_blocks.1.resnets.1.conv1", "unet.conv_out"} <= set(outermost)
    assert any("attentions" in path for path in outermost) is (style != "plain")
    assert not any("down_blocks" in path or "up_blocks.0" in path for path in outermost)


@pytest.mark.parametrize("style", ["2.1", "plain"])  # the embedded model, in test_compiled, is like 1.5
def test_every_shape_on_openvino(style: str, tmp_path: Path) -> None:
    graph, compiler = shallow_unet_graph(tiny(style)), COMPILERS["openvino"]()
    compiler.compile(graph, tmp_path, "float32")
    compiled = compiler.load(tmp_path, "float32")
    for rows, groups, side, rank in ((1, 1, (16, 16), 0), (4, 2, (13, 7), 16), (6, 3, (1, 2), 2)):
        inputs = (
            *(noise(rows, 4, *side), noise(rows).abs() * 300, noise(rows, 77, 24), noise(rows, 16, *side)),
            *lora_files.random_inputs(graph.module.layouts, groups, rank),
        )
        with torch.inference_mode():
            expected = graph.module(*inputs)
        (computed,) = compiled(*inputs)
        torch.testing.assert_close(computed, expected, rtol=0, atol=1e-4)


def test_the_emoji_model(components: Components) -> None:
    engine = EagerEngine(components)
    call = noise(2, 4, 16, 12), torch.tensor([700.0, 3.0]), noise(2, 77, 192)
    generator = torch.Generator().manual_seed(0)
    layers = {
        path: LoraLayer(
            torch.randn(2, shape[1], generator=generator) / 10, torch.randn(shape[0], 2, generator=generator)
        )
        for path, shape in engine.lora_targets.items()
        if len(shape) == 2 and path.startswith("unet.")
    }
    loras = LoraSet.of([(Lora(("one", 1, 1), layers), 1.0)])
    for rows in (None, [loras, None]):
        prediction, deep = predict(engine, *call, rows)
        again, given = predict(engine, *call, rows, deep)
        assert torch.equal(again, prediction)
        assert given is deep
    plain, _ = predict(engine, *call, None, deep)
    assert (plain[0] - prediction[0]).abs().max() > 0.01, "LoRA changes the outermost layers too"
    torch.testing.assert_close(plain[1], prediction[1], rtol=0, atol=1e-4)
