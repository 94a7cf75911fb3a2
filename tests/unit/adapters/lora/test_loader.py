"""A request's LoRAs become one set, whose key says what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests import lora_files
from tests.unit.conftest import request_for
from triton_diffusers.adapters.lora import LoraLoader, LoraSet
from triton_diffusers.api.request import LoraChoice
from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.settings import Settings

Targets = Mapping[str, tuple[int, ...]]
CONV = "unet.down_blocks.0.resnets.0.conv1"


@pytest.fixture
def weights(targets: Targets) -> dict[str, lora_files.Weights]:
    return {
        "a": lora_files.random_weights(targets, 2, 0),
        "b": lora_files.random_weights(targets, 3, 1, lambda path: path.startswith("unet.")),
    }


@pytest.fixture
def loader(tmp_path: Path, targets: Targets, weights: dict[str, lora_files.Weights]) -> LoraLoader:
    for name, layers in weights.items():
        lora_files.save(tmp_path / f"{name}.safetensors", lora_files.kohya(layers))
    return LoraLoader(Settings(model_dir=tmp_path), targets)


def load(loader: LoraLoader, *choices: tuple[str, float]) -> LoraSet | None:
    return loader.load(request_for(loras=tuple(LoraChoice(f"{name}.safetensors", weight) for name, weight in choices)))


def test_the_set_adds_what_the_loras_add(loader: LoraLoader, weights: dict[str, lora_files.Weights]) -> None:
    joined = load(loader, ("a", 0.75), ("b", -0.5))
    assert joined is not None
    (down_a, up_a), (down_b, up_b) = weights["a"][CONV], weights["b"][CONV]
    layer = joined.layers[CONV]
    assert layer.rank == 5
    expected = 0.75 * torch.tensordot(up_a, down_a, 1) - 0.5 * torch.tensordot(up_b, down_b, 1)
    torch.testing.assert_close(torch.tensordot(layer.up, layer.down, 1), expected)
    text = "text_encoder.encoder.layers.0.mlp.fc1"
    torch.testing.assert_close(joined.layers[text].up, 0.75 * weights["a"][text][1])


def test_zero_weights_give_no_set(loader: LoraLoader) -> None:
    assert load(loader) is None
    assert load(loader, ("a", 0.0), ("b", -0.0)) is None
    assert load(loader, ("a", 0.0), ("b", 1.0)) == load(loader, ("b", 1.0))


def test_a_file_that_is_weighed_with_zero_must_be_there_all_the_same(loader: LoraLoader) -> None:
    with pytest.raises(NotFound):
        load(loader, ("missing", 0.0))


def test_equal_choices_are_one_set(loader: LoraLoader, tmp_path: Path) -> None:
    first = load(loader, ("a", 0.75), ("b", 1.0))
    assert load(loader, ("a", 0.75), ("b", 1.0)) is first
    os.utime(tmp_path / "a.safetensors", ns=(1, 1))
    others = [load(loader, ("a", 0.75), ("b", 1.0)), load(loader, ("a", 0.75)), load(loader, ("a", 0.7), ("b", 1.0))]
    assert first is not None
    assert len({first, *others}) == 4


def test_a_set_that_leaves_the_text_encoder_alone_does_not_part_prompts(loader: LoraLoader) -> None:
    both, unet = load(loader, ("a", 1.0)), load(loader, ("b", 1.0))
    assert both is not None
    assert unet is not None
    assert both.text_key == both.key
    assert unet.text_key == ()


def test_changes_that_are_not_of_low_rank_are_weighed_and_counted(loader: LoraLoader, tmp_path: Path) -> None:
    fc1, conv = "lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_unet_conv_in"
    tensors = {f"{fc1}.diff": torch.ones(12, 6), f"{conv}.diff_b": torch.ones(8)}
    lora_files.save(tmp_path / "c.safetensors", tensors)
    loras = load(loader, ("c", 0.5), ("c", 2.0))
    assert loras is not None
    assert loras.text_key == loras.key
    assert {path: [weight for _, weight in changes] for path, changes in loras.changes.items()} == {
        "text_encoder.encoder.layers.0.mlp.fc1": [0.5, 2.0],
        "unet.conv_in": [0.5, 2.0],
    }
    assert loras.nbytes == 2 * 4 * (12 * 6 + 8)


def test_a_weight_does_not_change_the_file_that_is_kept(
    loader: LoraLoader, weights: dict[str, lora_files.Weights]
) -> None:
    for weight in (0.5, 2.0, 1.0):
        loras = load(loader, ("b", weight))
        assert loras is not None
        torch.testing.assert_close(loras.layers[CONV].up, weights["b"][CONV][1] * weight)


def test_bundled_embeddings_are_told(
    loader: LoraLoader, tmp_path: Path, weights: dict[str, lora_files.Weights]
) -> None:
    bundled = {f"bundle_emb.{name}.string_to_param.*": torch.zeros(2, 6) for name in ("x", "y", "z", "更多")}
    lora_files.save(tmp_path / "c.safetensors", {**lora_files.kohya(weights["b"]), **bundled})
    warnings: list[str] = []
    choices = tuple(LoraChoice(f"{name}.safetensors", 1.0) for name in "ac")
    loras = loader.load(request_for(loras=choices), warnings)
    assert loras is not None
    assert loras.layers[CONV].rank == 5
    assert warnings == [
        "lora_path: 'c.safetensors' bundles embeddings ('x', 'y', 'z' and 1 more), which are not used;"
        " place them in the model's embeddings folder to use them"
    ]


def test_the_settings_bound_the_file(tmp_path: Path, targets: Targets) -> None:
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(InvalidRequest, match="more than 1 MB"):
        load(LoraLoader(Settings(model_dir=tmp_path, max_lora_megabytes=1), targets), ("a", 1.0))
