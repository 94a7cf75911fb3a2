"""A file's OpenCLIP text encoder has the layers that its UNet was trained with, no more and no less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.checkpoints.original import Tensors, original, text_encoder, unet, vae, write
from triton_diffusers.checkpoints.convert import convert
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.folder import load_folder
from triton_diffusers.checkpoints.open_clip import used_layers

_TEXT = "cond_stage_model.model."
_LAST = f"{_TEXT}transformer.resblocks.2."
_WHOLE = (f"{_TEXT}text_projection", f"{_TEXT}logit_scale")


def second(*, copied: bool, without: tuple[str, ...] = ()) -> Tensors:
    """Return a small Stable Diffusion 2.x file whose text encoder uses two layers, less the tensors ``without``."""
    tensors = original(unet(second=True), vae(), text_encoder(act="gelu"), open_clip=True, copied=copied)
    return {name: value for name, value in tensors.items() if not name.startswith(without)} if without else tensors


def loaded(tmp_path: Path, tensors: Tensors) -> Any:
    """Return the text encoder that a file with ``tensors`` becomes."""
    (tmp_path / "made").mkdir()
    convert(write(tmp_path / "two.safetensors", tensors), tmp_path / "made")
    cpu = torch.device("cpu")
    return load_folder(tmp_path / "made", device=cpu, dtype=torch.float32, with_checker=False).text_encoder


def assert_two_layers(encoder: Any) -> None:
    """Assert that the text encoder computes as the one that the file was made of."""
    ids = torch.tensor([[49406, 320, 2368, 49407]])
    with torch.inference_mode():
        torch.testing.assert_close(encoder(ids)[0], text_encoder(act="gelu")(ids)[0])
    assert encoder.config.num_hidden_layers == 2


@pytest.mark.parametrize(
    ("copied", "without"),
    [
        pytest.param(False, (), id="published"),
        pytest.param(True, _WHOLE, id="of sd-scripts, without the projection"),
        pytest.param(False, (_LAST, *_WHOLE), id="of a diffusers folder"),
    ],
)
def test_layers_are_counted_by_evidence(tmp_path: Path, copied: bool, without: tuple[str, ...]) -> None:
    assert_two_layers(loaded(tmp_path, second(copied=copied, without=without)))


@pytest.mark.parametrize("without", [(), (_LAST,)], ids=["with the unused layer", "without"])
def test_sidecar_says_how_many_layers_are_used(tmp_path: Path, without: tuple[str, ...]) -> None:
    config = tmp_path / "two.config" / "text_encoder" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"num_hidden_layers": 2}))
    assert_two_layers(loaded(tmp_path, second(copied=False, without=without)))


def test_training_config_names_the_last_layer(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("model: {params: {cond_stage_config: {params: {layer: last}}}}")
    assert_two_layers(loaded(tmp_path, second(copied=False, without=(_LAST,))))


def test_a_wrong_layer_count_in_the_sidecar_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "two.config" / "text_encoder" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"num_hidden_layers": 1}))
    said = r"text_encoder/config.json: num_hidden_layers 1 is invalid: .*two.safetensors has 3 layers"
    with pytest.raises(LoadError, match=said):
        loaded(tmp_path, second(copied=False))


def test_no_layer_is_lost_by_its_number(tmp_path: Path) -> None:
    """diffusers' own conversion drops layer 23 of every OpenCLIP text encoder, also where it is used."""
    encoder = text_encoder(act="gelu", layers=24)
    tensors = original(unet(second=True), vae(), encoder, open_clip=True, copied=False)
    cut = {name: value for name, value in tensors.items() if ".resblocks.24." not in name and name not in _WHOLE}
    made = loaded(tmp_path, cut)
    ids = torch.tensor([[49406, 320, 2368, 49407]])
    with torch.inference_mode():
        torch.testing.assert_close(made(ids)[0], encoder(ids)[0])


@pytest.mark.parametrize(
    ("layers", "width", "names", "layer", "used"),
    [
        (24, 1024, ("text_projection", "logit_scale"), "penultimate", 23),
        (24, 1024, (), None, 23),
        (23, 1024, ("text_projection", "logit_scale"), None, 23),
        (23, 1024, (), "penultimate", 23),
        (24, 1024, (), "last", 24),
        (32, 1280, (), None, 31),
        (6, 384, ("logit_scale",), None, 5),
        (6, 384, (), None, 6),
    ],
)
def test_used_layers(layers: int, width: int, names: tuple[str, ...], layer: str | None, used: int) -> None:
    tensors = {f"{_TEXT}transformer.resblocks.{n}.ln_1.bias": torch.full((2,), float(n)) for n in range(layers)}
    tensors |= {_TEXT + name: torch.ones(1) for name in names}
    assert used_layers(tensors, layers, width, layer=layer)[0] == used
