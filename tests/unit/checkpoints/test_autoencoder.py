"""Autoencoders in files of their own: in every form in which they are shared, the same network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.checkpoints.original import Tensors, original, text_encoder, unet, vae, write
from tests.unit.conftest import ROOT
from triton_diffusers.artifacts import fingerprint
from triton_diffusers.checkpoints.autoencoder import convert_vae
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.settings import Settings

VAE = "first_stage_model."


def other_vae() -> Any:
    """Return an autoencoder of the sizes of ``vae()``, with other weights."""
    made = vae()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.5)
    return made


def original_vae(model: Any, prefix: str = "") -> Tensors:
    tensors = original(unet(), model, text_encoder())
    own = {name.removeprefix(VAE): value for name, value in tensors.items() if name.startswith(VAE)}
    return {f"{prefix}{name}": value.contiguous().clone() for name, value in own.items()}


def same(one: Any, other: Any) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def file_of(folder: Path, form: str, name: str = "m.vae") -> Path:
    """``other_vae()`` as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    model = other_vae()
    if form == "diffusers":
        save_file(model.state_dict(), path := folder / f"{name}.safetensors")
    elif form == "pickle":
        content = {**original_vae(model), "loss.logvar": torch.zeros(1)}
        torch.save({"state_dict": content, "epoch": 3}, path := folder / f"{name}.pt")
    else:
        path = write(folder / f"{name}.safetensors", original_vae(model, VAE if form == "prefixed" else ""))
    return path


@pytest.mark.parametrize("form", ["original", "prefixed", "diffusers", "pickle"])
def test_every_form_is_the_same_network(tmp_path: Path, form: str) -> None:
    from diffusers import AutoencoderKL

    (folder := tmp_path / "made").mkdir()
    convert_vae(file_of(tmp_path, form), folder)
    made, missing = AutoencoderKL.from_pretrained(folder, output_loading_info=True)
    assert missing["missing_keys"] == []
    assert same(made, other_vae())
    assert made.config.scaling_factor == 0.18215


@pytest.mark.parametrize("tensors", [{"lora_unet.alpha": torch.ones(1)}, {"encoder.conv_in.bias": torch.ones(1)}])
def test_a_file_that_is_not_an_autoencoder_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    file = write(tmp_path / "x.safetensors", tensors)
    with pytest.raises(LoadError, match=f"{file} is not an autoencoder of Stable Diffusion: it has no "):
        convert_vae(file, tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a model directory of one checkpoint file, with an autoencoder of its own."""
    write(tmp_path / "base_model" / "m.safetensors", original(unet(), vae(), text_encoder()))
    return tmp_path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a model directory whose checkpoint has no autoencoder."""
    whole = original(unet(), vae(), text_encoder())
    write(tmp_path / "base_model" / "m.safetensors", {k: v for k, v in whole.items() if not k.startswith(VAE)})
    return tmp_path


def loaded(folder: Path, **settings: str) -> Any:
    return load_components(Settings(model_dir=folder, device="cpu", cache_dir=folder / "cache", **settings)).vae


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["checkpoint", "bare"])
def test_the_autoencoder_beside_a_checkpoint_is_used_and_logged(
    model: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    folder = request.getfixturevalue(model)
    file = file_of(folder / "base_model", "pickle")
    with caplog.at_level("INFO"):
        assert same(loaded(folder), other_vae())
    assert f"m.safetensors: its autoencoder is {file}" in caplog.text
    file.unlink()
    if model == "checkpoint":
        assert same(loaded(folder), vae())
    else:
        with pytest.raises(LoadError, match=r"has no vae/; put an autoencoder beside the checkpoint"):
            loaded(folder)


def test_a_checkpoint_without_any_autoencoder_is_refused_with_a_hint(bare: Path) -> None:
    hint = r"it has no autoencoder \(first_stage_model.\*\); put an autoencoder beside the checkpoint \(<name>.vae"
    with pytest.raises(LoadError, match=hint):
        loaded(bare)


@pytest.mark.parametrize("setting", ["others/x.safetensors", "others"])
def test_the_autoencoder_of_a_setting_replaces_a_folders_own(tmp_path: Path, setting: str) -> None:
    """It is for the same latents, so that the folder's scaling factor counts for a lone file."""
    base = tmp_path / "base_model"
    shutil.copytree(ROOT / "models" / "emoji" / "base_model", base)
    own = loaded(tmp_path, close_safety="true")
    changed = {name: value * 0.5 for name, value in own.state_dict().items()}
    write(tmp_path / "others" / "x.safetensors", changed)
    before = fingerprint(tmp_path)
    used = loaded(tmp_path, vae=setting, close_safety="true")
    assert torch.equal(used.decoder.conv_in.weight, changed["decoder.conv_in.weight"])
    assert used.config.scaling_factor == own.config.scaling_factor
    assert fingerprint(tmp_path, setting) != before
    assert fingerprint(tmp_path) == before


def test_a_separate_autoencoder_changes_the_fingerprint(checkpoint: Path) -> None:
    prints = [fingerprint(checkpoint)]
    for form in ("original", "diffusers", "pickle"):
        file = file_of(checkpoint / "base_model", form)
        prints.append(fingerprint(checkpoint))
        file.unlink()
    other_vae().save_pretrained(checkpoint / "vae")
    prints.append(fingerprint(checkpoint))
    assert len(set(prints)) == len(prints)
    shutil.rmtree(checkpoint / "vae")
    assert fingerprint(checkpoint) == prints[0]


def test_a_checkpoint_file_uses_the_files_beside_it(checkpoint: Path) -> None:
    file = checkpoint / "base_model" / "m.safetensors"
    settings = Settings(model_dir=file, cache_dir=checkpoint / "cache", device="cpu")
    assert (settings.model_folder, settings.model_name) == (file.parent, "m")
    assert same(load_components(settings).vae, vae())
    assert settings.preprocessors_dir == file.parent / "preprocessors"
    vector = torch.ones(1, 64)
    (file.parent / "embeddings").mkdir()
    save_file({"emb_params": vector}, file.parent / "embeddings" / "mine.safetensors")
    assert "mine" in load_components(settings).tokenizer.get_vocab()
