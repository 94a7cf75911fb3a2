"""Checkpoints that cannot be converted are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.checkpoints.original import original, text_encoder, unet, vae, write
from tests.unit.checkpoints.test_convert import converted
from triton_diffusers.checkpoints.errors import LoadError


def test_a_tokenizer_that_does_not_fit_is_asked_for(tmp_path: Path) -> None:
    source = write(tmp_path / "one.safetensors", original(unet(), vae(), text_encoder(words=2048)))
    with pytest.raises(LoadError, match=r"has 2048 words .* put the model's own into .*one.config/tokenizer"):
        converted(source, tmp_path / "made")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (
            "model.diffusion_model.input_blocks.1.0.out_layers.3.weight",
            "has no tensor model.diffusion_model",
        ),
        (
            "model.diffusion_model.output_blocks.0.0.in_layers.2.weight",
            "no tensor up_blocks.0.resnets.0.conv1",
        ),
        ("model.diffusion_model.time_embed.0.bias", "the unet has no tensor time_embedding.linear_1.bias"),
        ("first_stage_model.decoder.conv_in.weight", "has no tensor first_stage_model.decoder.conv_in.weight"),
        ("first_stage_model.post_quant_conv.bias", "the vae has no tensor post_quant_conv.bias"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            "the text_encoder has no tensor .*final_layer_norm.bias",
        ),
    ],
)
def test_a_missing_tensor_is_named(tmp_path: Path, first: dict[str, torch.Tensor], missing: str, said: str) -> None:
    source = write(tmp_path / "one.safetensors", {name: tensor for name, tensor in first.items() if name != missing})
    with pytest.raises(LoadError, match=f"one.safetensors is incomplete: .*{said}"):
        converted(source, tmp_path / "made")


def test_a_wrong_shape_is_named(tmp_path: Path, first: dict[str, torch.Tensor]) -> None:
    name = "model.diffusion_model.out.0.bias"
    source = write(tmp_path / "one.safetensors", {**first, name: torch.zeros(31)})
    with pytest.raises(LoadError, match=r"unet conv_norm_out.bias has the shape \(31,\), not \(32,\)"):
        converted(source, tmp_path / "made")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["conditioner.embedders.0.model.x"], "not supported yet: SDXL refiner"),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.proj.weight"], "not supported yet: SD3"),
        (["double_blocks.0.img_attn.proj.weight"], "not supported yet: Flux"),
        (["lora_unet_down_blocks_0_x.lora_up.weight"], "is a LoRA, not a checkpoint"),
        (["control_model.time_embed.0.weight"], "is a ControlNet, not a checkpoint"),
        (["down_blocks.0.resnets.0.conv1.weight"], "is a UNet alone, not a checkpoint"),
        (["encoder.conv_in.weight"], "is an autoencoder alone, not a checkpoint"),
        (["a"], "is not a Stable Diffusion checkpoint: it has no model.diffusion_model.input_blocks.0.0.weight"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "has no text encoder"),
    ],
)
def test_unsupported_checkpoints_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    source = write(tmp_path / "x.safetensors", {name: torch.zeros(32, 4, 3, 3) for name in names})
    with pytest.raises(LoadError, match=said):
        converted(source, tmp_path / "made")


def test_a_depth_model_is_named(tmp_path: Path, first: dict[str, torch.Tensor]) -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    source = write(tmp_path / "x.safetensors", {**first, name: torch.zeros(32, 5, 3, 3)})
    with pytest.raises(LoadError, match="not supported yet: Stable Diffusion 2 depth"):
        converted(source, tmp_path / "made")


def test_a_sidecar_that_makes_no_model(tmp_path: Path, first: dict[str, torch.Tensor]) -> None:
    source = write(tmp_path / "one.safetensors", first)
    (tmp_path / "one.config" / "unet").mkdir(parents=True)
    config = tmp_path / "one.config" / "unet" / "config.json"
    config.write_text(json.dumps({"mid_block_type": "NoSuchBlock"}))
    with pytest.raises(LoadError, match=r"its unet cannot be made: .*NoSuchBlock"):
        converted(source, tmp_path / "made")
    config.write_text("[")
    with pytest.raises(LoadError, match=r"unet/config.json is not JSON"):
        converted(source, tmp_path / "again")


@pytest.mark.parametrize(
    ("component", "key", "value", "has"),
    [
        ("text_encoder", "num_hidden_layers", 1, "2"),
        ("text_encoder", "max_position_embeddings", 64, "77"),
        ("text_encoder", "vocab_size", 1000, "49408"),
        ("text_encoder", "hidden_size", 32, "64"),
        ("unet", "layers_per_block", 2, "1"),
        ("unet", "cross_attention_dim", 768, "64"),
        ("unet", "block_out_channels", [32, 32], r"\[32, 64\]"),
        ("unet", "transformer_layers_per_block", 2, "1"),
        ("unet", "use_linear_projection", True, "False"),
        ("unet", "in_channels", 9, "4"),
        ("vae", "layers_per_block", 2, "1"),
        ("vae", "latent_channels", 16, "4"),
    ],
)
def test_a_sidecar_that_denies_the_tensors_is_refused(
    tmp_path: Path, first: dict[str, torch.Tensor], component: str, key: str, value: Any, has: str
) -> None:
    source = write(tmp_path / "one.safetensors", first)
    (tmp_path / "one.config" / component).mkdir(parents=True)
    (tmp_path / "one.config" / component / "config.json").write_text(json.dumps({key: value}))
    said = rf"{component}/config.json: {key} .* is invalid: .*one.safetensors has {has}"
    with pytest.raises(LoadError, match=said):
        converted(source, tmp_path / "made")


def test_parts_of_two_models_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "one.safetensors", original(unet(cross=128), vae(), text_encoder()))
    with pytest.raises(LoadError, match="takes text states of width 128, and its text encoder has width 64"):
        converted(source, tmp_path / "made")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.diffusion_model.output_blocks.4.0.in_layers.2.weight", "its unet has tensors that fit no such"),
        ("model.diffusion_model.input_blocks.9.0.out_layers.3.weight", "it has 9 as a number of .* and lacks 4"),
        ("first_stage_model.decoder.up.3.block.0.conv1.weight", "its vae has tensors that fit no such"),
        ("cond_stage_model.transformer.text_model.encoder.layers.999999999.mlp.fc1.bias", "999999999 .* lacks 2"),
    ],
)
def test_a_surplus_block_is_named(tmp_path: Path, first: dict[str, torch.Tensor], name: str, said: str) -> None:
    source = write(tmp_path / "one.safetensors", {**first, name: torch.zeros(32, 32, 3, 3)})
    with pytest.raises(LoadError, match=said):
        converted(source, tmp_path / "made")
