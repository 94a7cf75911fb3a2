"""Loading a checkpoint, and what is said of one that cannot be loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.unit.conftest import NATIVE_SIDE, ROOT
from triton_diffusers.checkpoints.load import Components, LoadError, device_and_dtype, load_components
from triton_diffusers.engines import ENGINES
from triton_diffusers.settings import Settings

EMOJI = ROOT / "models" / "emoji"


def test_the_emoji_model(components: Components) -> None:
    assert components.family.latents.pixels == 8
    for module in (components.text_encoder, components.denoiser, components.vae, components.safety_checker):
        assert not module.training
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert ENGINES["eager"](components).family.defaults.side == NATIVE_SIDE


def test_auto_precision_is_float32_on_a_cpu() -> None:
    assert device_and_dtype(Settings(device="cpu")) == (torch.device("cpu"), torch.float32)
    assert device_and_dtype(Settings(device="cpu", dtype="bfloat16")) == (torch.device("cpu"), torch.bfloat16)
    assert device_and_dtype(Settings(device="cuda:1")) == (torch.device("cuda:1"), torch.float16)


def test_a_closed_checker_is_not_loaded() -> None:
    components = load_components(Settings(model_dir=EMOJI, device="cpu", dtype="bfloat16", close_safety=True))
    assert components.safety_checker is None
    assert {parameter.dtype for parameter in components.denoiser.parameters()} == {torch.bfloat16}


def test_git_lfs_pointer_is_named_unless_another_file_is_loaded(tmp_path: Path) -> None:
    shutil.copytree(EMOJI / "base_model", tmp_path / "base_model")
    unet = tmp_path / "base_model" / "unet"
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    settings = Settings(model_dir=tmp_path, device="cpu", dtype="float32", close_safety=True)
    (unet / "diffusion_pytorch_model.fp16.safetensors").write_text(pointer)
    load_components(settings)
    weights = unet / "diffusion_pytorch_model.safetensors"
    weights.write_text(pointer)
    with pytest.raises(LoadError, match=f"^{weights} cannot be read: it is a Git LFS pointer"):
        load_components(settings)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=f"{tmp_path} is not a model directory: it has neither"):
        load_components(Settings(model_dir=tmp_path))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model_index.json", "{"),
        ("model_index.json", "{}"),
        ("unet/config.json", "{"),
        ("unet/diffusion_pytorch_model.safetensors", "no weights"),
        ("text_encoder/model.safetensors", "no weights"),
        ("vae/diffusion_pytorch_model.safetensors", None),
        ("tokenizer/vocab.json", None),
    ],
)
@pytest.mark.filterwarnings("ignore")  # the libraries complain as they like about a broken file
def test_a_broken_model_is_named(tmp_path: Path, file: str, content: str | None) -> None:
    shutil.copytree(EMOJI / "base_model", tmp_path / "base_model")
    path = tmp_path / "base_model" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(LoadError, match=f"{tmp_path}/base_model"):
        load_components(Settings(model_dir=tmp_path, device="cpu"))


def test_modules_of_another_kind_are_refused(tmp_path: Path) -> None:
    shutil.copytree(EMOJI / "base_model", tmp_path / "base_model")
    index = tmp_path / "base_model" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "unet": ["diffusers", "NoSuchModel"]}))
    with pytest.raises(LoadError, match=f"{tmp_path}/base_model"):
        load_components(Settings(model_dir=tmp_path, device="cpu"))
