"""Adapters are listed without loading them."""

from __future__ import annotations

from pathlib import Path

from tests.unit.conftest import ROOT
from triton_diffusers.adapters.places import controlnets, embeddings, loras


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_all_kinds_of_files_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "LoRA/pytorch_lora_weights.bin", "LoRA/x/b.safetensors", "LoRA/x/notes.txt", "lycoris/c.pt")
    touch(tmp_path, "lycoris/d/pytorch_lora_weights.safetensors", "other/e.pt")
    touch(tmp_path, "controlnet/diffusion_pytorch_model.fp16.safetensors", "controlnets/a.pth", "controlnets/b/x.txt")
    touch(tmp_path, "controlnets/c/diffusion_pytorch_model.bin", "embeddings/word.pt", "embeddings/readme.md")
    found = ["LoRA/pytorch_lora_weights.bin", "LoRA/x/b.safetensors", "lycoris/c.pt", "lycoris/d"]
    assert sorted(loras(tmp_path)) == found
    assert controlnets(tmp_path) == ["controlnet", "controlnets/a.pth", "controlnets/c"]
    assert embeddings(tmp_path) == ["word"]


def test_a_directory_without_adapters_has_none(tmp_path: Path) -> None:
    assert [list_all(tmp_path) for list_all in (loras, controlnets, embeddings)] == [[], [], []]
    assert not loras(tmp_path / "missing")


def test_the_embedded_model_has_its_own() -> None:
    model = ROOT / "models" / "emoji"
    assert controlnets(model) == ["controlnet", "controlnets/blocks"]
    assert loras(model)
