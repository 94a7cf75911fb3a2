"""LoRAs by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_diffusers.adapters.lora.catalogue import LoraCatalogue
from triton_diffusers.errors import InvalidRequest, NotFound

FILES = [
    "lora/flat.safetensors",
    "lora/Ink.v2.safetensors",
    "lora/styles/oil.pt",
    "lora/styles/Line.safetensors",
    "LyCORIS/line.safetensors",
    "lora/红/é 😀.safetensors",
    "lora/light/pytorch_lora_weights.safetensors",
    "lora/notes.txt",
    "base_model/hidden.safetensors",
]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("flat", "lora/flat.safetensors"),
        ("flat.safetensors", "lora/flat.safetensors"),
        (" FLAT ", "lora/flat.safetensors"),
        ("lora/flat", "lora/flat.safetensors"),
        ("ink.v2", "lora/Ink.v2.safetensors"),
        ("oil", "lora/styles/oil.pt"),
        ("styles/oil.pt", "lora/styles/oil.pt"),
        ("styles\\oil", "lora/styles/oil.pt"),
        ("line", "LyCORIS/line.safetensors"),
        ("Line", "lora/styles/Line.safetensors"),
        ("e\N{COMBINING ACUTE ACCENT} 😀", "lora/红/é 😀.safetensors"),
        ("红/é 😀", "lora/红/é 😀.safetensors"),
        ("light", "lora/light"),
    ],
)
def test_a_name_finds_its_file(model_dir: Path, name: str, path: str) -> None:
    assert LoraCatalogue(model_dir).find("prompt", name) == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flit", "prompt: LoRA 'flit' not found in lora/, loras/ or lycoris/; did you mean flat or light or line?"),
        ("ink", "prompt: LoRA 'ink' not found in lora/, loras/ or lycoris/; did you mean Ink.v2 or line?"),
        ("hidden", None),
        ("../base_model/hidden", None),
        ("notes", None),
        ("pytorch_lora_weights", None),
        ("at", None),
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_an_unknown_name_is_told_with_near_ones(model_dir: Path, name: str, message: str | None) -> None:
    with pytest.raises(NotFound) as caught:
        LoraCatalogue(model_dir).find("prompt", name)
    assert "not found" in str(caught.value)
    assert message is None or str(caught.value) == message


def test_an_ambiguous_name_is_refused_with_the_paths(model_dir: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"several .*: 'lora/styles/Line.safetensors', 'LyCORIS/line.safetensors'"):
        LoraCatalogue(model_dir).find("prompt", "LINE")


def test_files_that_come_and_go_are_noticed(model_dir: Path) -> None:
    catalogue = LoraCatalogue(model_dir)
    assert catalogue.find("prompt", "flat")
    (model_dir / "lora" / "styles" / "new.safetensors").touch()
    assert catalogue.find("prompt", "new") == "lora/styles/new.safetensors"
    (model_dir / "loras").mkdir()
    (model_dir / "loras" / "other.safetensors").touch()
    assert catalogue.find("prompt", "other") == "loras/other.safetensors"
    (model_dir / "lora" / "flat.safetensors").unlink()
    with pytest.raises(NotFound):
        catalogue.find("prompt", "flat")


def test_a_model_directory_without_loras_has_none(tmp_path: Path) -> None:
    catalogue = LoraCatalogue(tmp_path)
    for _ in range(2):
        with pytest.raises(NotFound):
            catalogue.find("prompt", "flat")
