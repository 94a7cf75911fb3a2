from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file

from training.emoji.lora import RANK, add_lora, lora_layers, train_lora
from training.emoji.lora_export import Layout, write_lora
from training.emoji.lora_styles import ALPHA
from training.emoji.parallel import Exchange
from training.emoji.run import Run
from training.emoji.unet import build_unet

BUDGET_BYTES = 2_500_000


def tiny_unet() -> UNet2DConditionModel:
    """Return the emoji UNet's kinds of blocks, narrow; always the same weights."""
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 2),
        cross_attention_dim=12,
        norm_num_groups=4,
    ).eval()


@torch.no_grad()
def predict(unet: UNet2DConditionModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    states = torch.randn(2, 5, 12, generator=generator)
    prediction: torch.Tensor = unet(latents, torch.tensor([10, 900]), states).sample
    return prediction


@pytest.fixture
def trained() -> UNet2DConditionModel:
    """Return a LoRA with something in it."""
    unet = tiny_unet()
    for parameter in add_lora(unet):
        parameter.data = torch.randn(parameter.shape).mul(0.1).half().float()
    return unet


def test_a_fresh_lora_changes_nothing_and_is_all_that_trains() -> None:
    unet = tiny_unet()
    before = predict(unet)
    parameters = add_lora(unet)
    torch.testing.assert_close(predict(unet), before)
    trained = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert len(trained) == len(parameters)
    assert all("lora_" in name for name in trained)
    assert any("attn2" in name for name in trained)
    assert any("conv1" in name for name in trained)
    assert any(".ff." in name for name in trained)


def test_the_committed_size_is_within_its_budget() -> None:
    assert 2 * sum(parameter.numel() for parameter in add_lora(build_unet())) < BUDGET_BYTES


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_diffusers_reads_what_was_written(tmp_path: Path, trained: UNet2DConditionModel, layout: Layout) -> None:
    file = tmp_path / "lora" / "style.safetensors"
    write_lora(file, lora_layers(trained), RANK, ALPHA, layout)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    plain = tiny_unet()
    expected = predict(trained)
    difference = (expected - predict(plain)).abs().max()
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=plain,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(file)
    # Half precision, and alpha / rank folded into B or applied by the reader.
    assert (predict(plain) - expected).abs().max() < 0.01 * difference


def test_the_kohya_file_says_alpha_beside_every_pair(tmp_path: Path, trained: UNet2DConditionModel) -> None:
    file = tmp_path / "style.safetensors"
    write_lora(file, lora_layers(trained), RANK, ALPHA, "kohya")
    tensors = load_file(file)
    assert "lora_unet_mid_block_resnets_0_conv1.lora_down.weight" in tensors
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight" in tensors
    modules = {name.split(".")[0] for name in tensors}
    assert len(tensors) == 3 * len(modules)
    assert all(tensors[f"{module}.alpha"] == ALPHA for module in modules)
    assert ALPHA != RANK
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["ss_network_dim"] == str(RANK)


class FixedObjective:
    """One batch for ever, in place of captioned latents."""

    def __init__(self, *_: object) -> None:
        self.target = predict(tiny_unet()).flip(0)

    def loss(self, unet: UNet2DConditionModel) -> torch.Tensor:
        generator = torch.Generator().manual_seed(2)
        latents = torch.randn(2, 4, 8, 8, generator=generator)
        states = torch.randn(2, 5, 12, generator=generator)
        loss: torch.Tensor = (unet(latents, torch.tensor([10, 900]), states).sample - self.target).square().mean()
        return loss


def test_training_resumes_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.emoji.lora.Objective", FixedObjective)
    monkeypatch.setattr("training.emoji.loop.warmup_cosine", lambda *_, **__: 1e-2)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    steps: list[int] = []

    def train(root: Path, iterations: int) -> Mapping[str, torch.Tensor]:
        unet = tiny_unet()
        exchange = Exchange(1, sum(parameter.numel() for parameter in add_lora(tiny_unet())))
        pipeline: Any = SimpleNamespace(unet=unet, text_encoder=None, tokenizer=None)
        nothing: Any = None
        return train_lora(
            Run(root, "lora-flat"),
            0,
            exchange,
            pipeline,
            nothing,
            nothing,
            nothing,
            iterations,
            lambda _, step: steps.append(step),
        )

    straight = train(tmp_path / "straight", 4)
    train(tmp_path / "resumed", 2)
    resumed = train(tmp_path / "resumed", 4)
    assert steps == [4, 2, 4]
    assert any(tensor.abs().max() > 0 for name, tensor in straight.items() if "lora_B" in name)
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)
