"""LoRA files of every layout give equal layers, and anything that does not fit is an error with its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
import torch

from tests import lora_files
from triton_diffusers.adapters.lora.layer import LoraError, LoraLayer
from triton_diffusers.adapters.lora.parts import MAX_RANK
from triton_diffusers.adapters.lora.reader import LoraReader

Targets = Mapping[str, tuple[int, ...]]
Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "unet.down_blocks.0.resnets.0.conv1"


@pytest.fixture
def reader(targets: Targets) -> LoraReader:
    return LoraReader(targets)


def attention(targets: Targets) -> lora_files.Weights:
    return lora_files.random_weights(targets, 2, 0, lora_files.is_attention)


def everything(targets: Targets) -> lora_files.Weights:
    return lora_files.random_weights(targets, 2, 0)


def check(layers: Mapping[str, LoraLayer], weights: lora_files.Weights, scale: float = 1.0) -> None:
    assert layers.keys() == weights.keys()
    for path, (down, up) in weights.items():
        torch.testing.assert_close(layers[path].down, down)
        torch.testing.assert_close(layers[path].up, up * scale)


@pytest.mark.parametrize(
    "layout",
    [
        lora_files.kohya,
        lora_files.peft,
        lambda weights: lora_files.peft(weights, prefix="base_model.model."),
        lambda weights: lora_files.kohya(weights, te_prefix="lora_te1"),
        lambda weights: {key.replace("lora_A.", "lora_A.default."): w for key, w in lora_files.peft(weights).items()},
    ],
    ids=["kohya", "peft", "base_model", "te1", "adapter name"],
)
def test_layouts(
    reader: LoraReader, targets: Targets, layout: Callable[[lora_files.Weights], lora_files.Tensors]
) -> None:
    check(reader.read(layout(everything(targets)), {}).layers, everything(targets))


def test_diffusers_older_layouts(reader: LoraReader, targets: Targets) -> None:
    check(reader.read(lora_files.older_diffusers(attention(targets)), {}).layers, attention(targets))
    down, up = torch.ones(2, 6), torch.ones(12, 2)
    stem = "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer"
    layers = reader.read({f"{stem}.down.weight": down, f"{stem}.up.weight": up}, {}).layers
    check(layers, {"text_encoder.encoder.layers.0.mlp.fc1": (down, up)})


def test_alpha_counts_by_the_rank(reader: LoraReader, targets: Targets) -> None:
    check(reader.read(lora_files.kohya(everything(targets), alpha=0.5), {}).layers, everything(targets), 0.25)
    tensors = {**lora_files.peft({Q: everything(targets)[Q]}), f"{Q}.alpha": torch.tensor(1)}
    check(reader.read(tensors, {}).layers, {Q: everything(targets)[Q]}, 0.5)


def test_alpha_in_the_metadata(reader: LoraReader, targets: Targets) -> None:
    config = {"unet.lora_alpha": 4, "unet.alpha_pattern": {"attn1.to_q": 3}, "text_encoder.lora_alpha": 1}
    layers = reader.read(lora_files.peft(attention(targets)), {"lora_adapter_metadata": json.dumps(config)}).layers
    for path, (_, up) in attention(targets).items():
        scale = 1.5 if path == Q else 2.0 if path.startswith("unet.") else 0.5
        torch.testing.assert_close(layers[path].up, up * scale)


def test_rank_stabilised(reader: LoraReader, targets: Targets) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.use_rslora": True})}
    down, up = torch.ones(4, 8), torch.ones(8, 4)
    (layer,) = reader.read(lora_files.peft({Q: (down, up)}), metadata).layers.values()
    torch.testing.assert_close(layer.up, up * 2.0)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"unet.lora_alpha": "8"}', '{"unet.lora_alpha": NaN}',
     '{"unet.alpha_pattern": 1}', '{"unet.lora_alpha": true}'],
)  # fmt: skip
def test_metadata_that_says_what_cannot_be_is_refused(reader: LoraReader, targets: Targets, text: str) -> None:
    with pytest.raises(LoraError):
        reader.read(lora_files.peft(attention(targets)), {"lora_adapter_metadata": text})


def test_a_kernel_in_three_parts_is_one_convolution(reader: LoraReader) -> None:
    """LoCon's CP decomposition: 1×1, the kernel, 1×1."""
    generator = torch.Generator().manual_seed(0)
    down, mid, up = (torch.randn(*shape, generator=generator) for shape in ((2, 8, 1, 1), (2, 2, 3, 3), (10, 2, 1, 1)))
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    tensors = {f"{name}.lora_{part}.weight": weight for part, weight in (("down", down), ("mid", mid), ("up", up))}
    layer = reader.read({**tensors, f"{name}.alpha": torch.tensor(1.0)}, {}).layers[CONV]
    image = torch.randn(1, 8, 5, 6, generator=generator)
    conv = torch.nn.functional.conv2d
    expected = 0.5 * conv(conv(conv(image, down), mid, padding=1), up)
    torch.testing.assert_close(conv(conv(image, layer.down, padding=1), layer.up[:, :, None, None]), expected)


def test_a_linear_weight_fits_a_pointwise_convolution_and_the_other_way_round(reader: LoraReader) -> None:
    proj_in = "unet.down_blocks.0.attentions.0.proj_in"
    layers = reader.read(
        {
            f"{proj_in}.lora_A.weight": torch.ones(2, 8),
            f"{proj_in}.lora_B.weight": torch.ones(8, 2),
            f"{Q}.lora_A.weight": torch.ones(2, 8, 1, 1),
            f"{Q}.lora_B.weight": torch.ones(8, 2, 1, 1),
        },
        {},
    ).layers
    assert (layers[proj_in].down.shape, layers[proj_in].up.shape) == ((2, 8, 1, 1), (8, 2))
    assert (layers[Q].down.shape, layers[Q].up.shape) == ((2, 8), (8, 2))


def test_layers_are_float32_copies(reader: LoraReader, targets: Targets) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        tensors = {key: tensor.to(dtype) for key, tensor in lora_files.peft(everything(targets)).items()}
        layers = reader.read(tensors, {}).layers
        memory = {tensor.data_ptr() for tensor in tensors.values()}
        for layer in layers.values():
            for weight in (layer.down, layer.up):
                assert weight.dtype is torch.float32
                assert weight.data_ptr() not in memory


def pair(down: torch.Tensor, up: torch.Tensor, path: str = Q) -> lora_files.Tensors:
    return {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}


OK = pair(torch.ones(2, 8), torch.ones(8, 2))
REFUSED: Mapping[str, tuple[Mapping[str, torch.Tensor], str]] = {
    "nothing": ({}, "no LoRA weights"),
    "a checkpoint": ({"down_blocks.0.resnets.0.conv1.weight": torch.ones(10, 8, 3, 3)}, "conv1.weight"),
    "another model's layer": ({**OK, **pair(*OK.values(), path="unet.down_blocks.7.attn")}, "down_blocks.7.attn"),
    "OFT": ({"lora_unet_conv_in.oft_blocks": torch.ones(2, 2)}, "OFT"),
    "BOFT of PEFT": ({f"{Q}.boft_R": torch.ones(2, 2)}, "BOFT"),
    "SDXL": ({**OK, "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": torch.ones(1)}, "SDXL"),
    "no up": ({f"{Q}.lora_A.weight": torch.ones(2, 8)}, "no up weight"),
    "no down": ({f"{Q}.lora_B.weight": torch.ones(8, 2)}, "no down weight"),
    "alpha alone": ({**OK, "lora_unet_conv_in.alpha": torch.tensor(1.0)}, "no weights beside lora_unet_conv_in.alpha"),
    "two spellings": ({**OK, f"{Q.removeprefix('unet.')}.lora_A.weight": torch.ones(2, 8)}, "mean the same"),
    "another width": (pair(torch.ones(2, 9), torch.ones(8, 2)), r"\(2, 9\)"),
    "another height": (pair(torch.ones(2, 8), torch.ones(9, 2)), r"\(9, 2\)"),
    "two ranks": (pair(torch.ones(2, 8), torch.ones(8, 3)), r"\(8, 3\)"),
    "another kernel": (pair(torch.ones(2, 8, 1, 1), torch.ones(10, 2), path=CONV), r"\(2, 8, 1, 1\)"),
    "no rank": (pair(torch.ones(0, 8), torch.ones(8, 0)), "rank is 0"),
    "a scalar": (pair(torch.tensor(1.0), torch.ones(8, 2)), r"\(\)"),
    "a huge rank": (pair(torch.ones(1).expand(10**7, 8), torch.ones(1).expand(8, 10**7)), f"{MAX_RANK}"),
    "claims of memory": (pair(torch.ones(1).expand(10**9, 10**6), torch.ones(8, 2)), "does not match"),
    "not a number": (pair(torch.full((2, 8), torch.nan), torch.ones(8, 2)), "NaN or infinite"),
    "infinite": (pair(torch.ones(2, 8), torch.full((8, 2), torch.inf)), "NaN or infinite"),
    "alpha is not a number": ({**OK, f"{Q}.alpha": torch.tensor(torch.nan)}, "alpha"),
    "two alphas": ({**OK, f"{Q}.alpha": torch.ones(2)}, "alpha"),
    "overflow": ({**pair(torch.ones(2, 8), torch.full((8, 2), 3e38)), f"{Q}.alpha": torch.tensor(100.0)}, "finite"),
    "whole numbers": (pair(torch.ones(2, 8, dtype=torch.int32), torch.ones(8, 2)), "int32"),
    "complex": (pair(torch.ones(2, 8, dtype=torch.complex64), torch.ones(8, 2)), "complex64"),
    "sparse": (pair(torch.ones(2, 8).to_sparse(), torch.ones(8, 2)), "unsupported"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_misfitting_files_are_refused(reader: LoraReader, case: str) -> None:
    tensors, says = REFUSED[case]
    with pytest.raises(LoraError, match=says):
        reader.read(tensors, {})


def test_a_message_names_the_first_keys_and_stays_short(reader: LoraReader) -> None:
    tensors = {f"{'x' * 10_000}.{number}": torch.ones(1) for number in range(1000)}
    with pytest.raises(LoraError, match="and 997 more") as caught:
        reader.read(tensors, {})
    assert len(str(caught.value)) < 600
