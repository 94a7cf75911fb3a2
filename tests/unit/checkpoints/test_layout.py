"""What a model directory holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.layout import find_base_model


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", ["base_model/sd-v1.5.safetensors", "base_model/x.ckpt", "base_model.safetensors"])
def test_one_file(tmp_path: Path, name: str) -> None:
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
