"""Every spelling of a layer leads to it, and the original numbers of blocks are those of Stable Diffusion 1.5."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from triton_diffusers.adapters.lora.ldm import ldm_names
from triton_diffusers.adapters.lora.names import LayerNames
from triton_diffusers.adapters.lora.targets import lora_modules, target_modules


@pytest.fixture(scope="module")
def sd15() -> list[str]:
    """Paths of the layers of Stable Diffusion 1.5's UNet, whose weights take no memory."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    return [path for path, _ in target_modules("unet", unet)]


# As the checkpoint of Stable Diffusion 1.5 has them.
ORIGINAL = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding.linear_1",
    "time_embed_2": "time_embedding.linear_2",
    "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
    "input_blocks_1_0_in_layers_0": "down_blocks.0.resnets.0.norm1",
    "input_blocks_1_0_out_layers_0": "down_blocks.0.resnets.0.norm2",
    "input_blocks_1_1_norm": "down_blocks.0.attentions.0.norm",
    "input_blocks_1_1_transformer_blocks_0_norm1": "down_blocks.0.attentions.0.transformer_blocks.0.norm1",
    "input_blocks_1_1_proj_in": "down_blocks.0.attentions.0.proj_in",
    "input_blocks_2_0_emb_layers_1": "down_blocks.0.resnets.1.time_emb_proj",
    "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks_4_0_skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    "input_blocks_8_1_transformer_blocks_0_attn2_to_k": "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k",
    "input_blocks_11_0_out_layers_3": "down_blocks.3.resnets.1.conv2",
    "middle_block_0_in_layers_2": "mid_block.resnets.0.conv1",
    "middle_block_1_transformer_blocks_0_attn1_to_out_0": "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
    "output_blocks_0_0_skip_connection": "up_blocks.0.resnets.0.conv_shortcut",
    "output_blocks_2_1_conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks_3_1_transformer_blocks_0_ff_net_2": "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
    "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks_8_2_conv": "up_blocks.2.upsamplers.0.conv",
    "output_blocks_11_1_proj_out": "up_blocks.3.attentions.2.proj_out",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
}


@pytest.mark.parametrize("original", ORIGINAL)
def test_original_numbers(sd15: list[str], original: str) -> None:
    assert LayerNames(sd15).find(f"lora_unet_{original}") == f"unet.{ORIGINAL[original]}"


def test_every_layer_has_an_original_name_of_its_own(sd15: list[str]) -> None:
    names = ldm_names([path.removeprefix("unet.") for path in sd15])
    assert len(set(names.values())) == len(names) == len(sd15)


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        ("lora_unet_down_blocks_0_resnets_0_conv1", "unet.down_blocks.0.resnets.0.conv1"),
        ("unet.down_blocks.0.resnets.0.conv1", "unet.down_blocks.0.resnets.0.conv1"),
        ("down_blocks.0.resnets.0.conv1", "unet.down_blocks.0.resnets.0.conv1"),
        ("base_model.model.down_blocks.0.resnets.0.conv1", "unet.down_blocks.0.resnets.0.conv1"),
        ("unet.base_model.model.down_blocks.0.resnets.0.conv1", "unet.down_blocks.0.resnets.0.conv1"),
        ("lora_unet_input_blocks_1_0_in_layers_2", "unet.down_blocks.0.resnets.0.conv1"),
        (
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
        ),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.encoder.layers.0.mlp.fc1"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder.encoder.layers.0.mlp.fc1"),
        ("lora_te_encoder_layers_0_mlp_fc1", "text_encoder.encoder.layers.0.mlp.fc1"),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1", "text_encoder.encoder.layers.0.mlp.fc1"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_q", "text_encoder.encoder.layers.0.self_attn.q_proj"),
        ("base_model.model.text_model.encoder.layers.0.mlp.fc1", "text_encoder.encoder.layers.0.mlp.fc1"),
    ],
)
def test_spellings(targets: Mapping[str, tuple[int, ...]], spelling: str, path: str) -> None:
    assert LayerNames(targets).find(spelling) == path


def test_a_text_encoder_with_one_more_level_is_the_same() -> None:
    names = LayerNames(["text_encoder.text_model.encoder.layers.0.mlp.fc1"])
    for spelling in ("lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.encoder.layers.0.mlp.fc1"):
        assert names.find(spelling) == "text_encoder.text_model.encoder.layers.0.mlp.fc1"


@pytest.mark.parametrize(
    "spelling", ["", "unet", "lora_unet_conv", "lora_te2_text_model_encoder_layers_0_mlp_fc1", "unet.conv_in.0"]
)
def test_unknown_layers_are_not_found(targets: Mapping[str, tuple[int, ...]], spelling: str) -> None:
    assert LayerNames(targets).find(spelling) is None


def test_only_linear_layers_and_plain_convolutions_are_targets() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Embedding(5, 6), nn.Conv2d(1, 2, 3))
    assert [path for path, _ in lora_modules("unet", module)] == ["unet.0", "unet.3"]
