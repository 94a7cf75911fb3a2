"""Contents of model directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.layout import find_base_model, has_base_model


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", ["base_model/sd-v1.5.safetensors", "base_model/x.ckpt", "base_model.safetensors"])
def test_a_single_checkpoint_file_is_found(tmp_path: Path, name: str) -> None:
    touch(
        tmp_path / name,
        tmp_path / "base_model" / "x.converted" / "model_index.json",
        tmp_path / "base_model" / "x.yaml",
    )
    found = find_base_model(tmp_path)
    assert (found.path, found.is_file) == (tmp_path / name, True)


def test_a_folder_before_the_files_in_it(tmp_path: Path) -> None:
    touch(tmp_path / "base_model" / "model_index.json", tmp_path / "base_model" / "v1-5-pruned.safetensors")
    found = find_base_model(tmp_path)
    assert (found.path, found.is_file) == (tmp_path / "base_model", False)


@pytest.mark.parametrize(
    "names",
    [
        ("base_model/a.safetensors", "base_model/b.ckpt"),
        ("base_model/model_index.json", "base_model.safetensors"),
        ("base_model.ckpt", "base_model.safetensors"),
    ],
)
def test_more_than_one(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(*(tmp_path / name for name in names))
    with pytest.raises(LoadError, match="more than one base model"):
        find_base_model(tmp_path)


def test_none(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"has neither base_model/ nor base_model.safetensors"):
        find_base_model(tmp_path)
    (tmp_path / "base_model").mkdir()
    with pytest.raises(LoadError, match=r"has neither a model_index.json nor a .safetensors or .ckpt file"):
        find_base_model(tmp_path)


def test_a_diffusers_folder_is_a_model_directory(tmp_path: Path) -> None:
    touch(tmp_path / "model_index.json", tmp_path / "vae" / "config.json", tmp_path / "lora" / "mine.safetensors")
    found = find_base_model(tmp_path)
    assert (found.path, found.is_file, found.vae) == (tmp_path, False, None)
    assert has_base_model(tmp_path)


def test_base_model_comes_before_an_index_beside_it(tmp_path: Path) -> None:
    touch(tmp_path / "model_index.json", tmp_path / "base_model" / "model_index.json")
    assert find_base_model(tmp_path).path == tmp_path / "base_model"


def test_a_checkpoint_file_is_a_model_directory(tmp_path: Path) -> None:
    touch(tmp_path / "one.safetensors", tmp_path / "other.safetensors", tmp_path / "one.vae.safetensors")
    found = find_base_model(tmp_path / "one.safetensors")
    assert (found.path, found.vae) == (tmp_path / "one.safetensors", tmp_path / "one.vae.safetensors")
    assert has_base_model(tmp_path / "one.safetensors")
    assert not has_base_model(tmp_path / "one.vae.safetensors")
    assert not has_base_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "pt", "bin"])
@pytest.mark.parametrize("stem", ["base_model/m", "base_model"])
def test_an_autoencoder_beside_a_checkpoint(tmp_path: Path, stem: str, suffix: str) -> None:
    vae = tmp_path / f"{stem}.vae.{suffix}"
    touch(tmp_path / f"{stem}.safetensors", vae, tmp_path / "base_model" / "other.vae.pt")
    found = find_base_model(tmp_path)
    assert (found.path, found.vae) == (tmp_path / f"{stem}.safetensors", vae)


@pytest.mark.parametrize("base", ["base_model/m.ckpt", "base_model/model_index.json"])
@pytest.mark.parametrize("folder", ["vae", "base_model/vae"])
@pytest.mark.parametrize(("file", "is_whole"), [("config.json", True), ("anime.pt", False)])
def test_an_autoencoder_in_a_folder_beside(tmp_path: Path, base: str, folder: str, file: str, is_whole: bool) -> None:
    vae = tmp_path / folder
    touch(tmp_path / base, vae / file)
    is_own = "model_index" in base and folder == "base_model/vae"
    assert find_base_model(tmp_path).vae == (None if is_own else vae if is_whole else vae / file)


def test_an_autoencoder_of_a_setting_comes_first(tmp_path: Path) -> None:
    touch(tmp_path / "base_model" / "m.ckpt", tmp_path / "base_model" / "m.vae.pt", tmp_path / "vae" / "config.json")
    touch(tmp_path / "others" / "good.safetensors")
    for setting in ("others/good.safetensors", str(tmp_path / "others" / "good.safetensors"), "others"):
        assert find_base_model(tmp_path, setting).vae == tmp_path / "others" / "good.safetensors"
    assert find_base_model(tmp_path, "vae").vae == tmp_path / "vae"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("none.pt", r"none.pt is not an autoencoder: expected a folder, or a .safetensors, .ckpt, .pt, .bin file"),
        ("m.txt", r"m.txt is not an autoencoder"),
        ("two", r"two is invalid: expected a config.json, or one file of weights, got a.pt, b.pt; name"),
        ("empty", r"empty is invalid: expected a config.json, or one file of weights, got none; name"),
    ],
)
def test_an_autoencoder_that_is_not_found_is_named(tmp_path: Path, setting: str, said: str) -> None:
    touch(tmp_path / "base_model.ckpt", tmp_path / "two" / "a.pt", tmp_path / "two" / "b.pt", tmp_path / "m.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoadError, match=said):
        find_base_model(tmp_path, setting)
