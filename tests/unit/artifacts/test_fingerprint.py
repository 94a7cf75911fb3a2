"""A model's fingerprint: equal for copies, different for other models, and computed from a fraction of the bytes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from triton_diffusers.artifacts import ArtifactError, fingerprint
from triton_diffusers.checkpoints.errors import LoadError

COMPONENTS = ("text_encoder", "unet", "vae")


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(64, 64, generator=generator), "b": torch.randn(3, generator=generator)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model directory in the diffusers layout, with the parts that a fingerprint reads."""
    base = tmp_path / "model" / "base_model"
    for number, component in enumerate(COMPONENTS):
        (base / component).mkdir(parents=True)
        (base / component / "config.json").write_text(json.dumps({"class": component}))
        save_file(tensors(number), base / component / "model.safetensors")
    (base / "model_index.json").write_text("{}")
    (base / "scheduler").mkdir()
    (base / "scheduler" / "scheduler_config.json").write_text("{}")
    return tmp_path / "model"


def test_a_copy_has_an_equal_fingerprint(model: Path, tmp_path: Path) -> None:
    before = fingerprint(model)
    assert len(before) == 64
    copy = Path(shutil.copytree(model, tmp_path / "elsewhere" / "copy"))
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    assert fingerprint(copy) == before


def add_lora(model: Path) -> None:
    (model / "lora").mkdir()
    save_file(tensors(), model / "lora" / "style.safetensors")


def add_artifact(model: Path) -> None:
    (model / "optimized_model" / "openvino-bfloat16").mkdir(parents=True)
    (model / "optimized_model" / "openvino-bfloat16" / "manifest.json").write_text("{}")


def change_scheduler(model: Path) -> None:
    (model / "base_model" / "scheduler" / "scheduler_config.json").write_text('{"steps_offset": 1}')


def add_half_copy(model: Path) -> None:
    save_file(tensors(5), model / "base_model" / "unet" / "model.fp16.safetensors")


def rewrite_with_metadata(model: Path) -> None:
    """Write different free text of equal length into the header."""
    path = model / "base_model" / "unet" / "model.safetensors"
    save_file(tensors(1), path, metadata={"format": "pt"})
    first = fingerprint(model)
    save_file(tensors(1), path, metadata={"format": "xy"})
    assert fingerprint(model) == first
    save_file(tensors(1), path)


@pytest.mark.parametrize(
    "change", [add_lora, add_artifact, change_scheduler, add_half_copy, rewrite_with_metadata]
)  # fmt: skip
def test_parts_that_are_not_compiled_do_not_count(model: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint(model)
    change(model)
    assert fingerprint(model) == before


def retrain(model: Path) -> None:
    save_file(tensors(7), model / "base_model" / "vae" / "model.safetensors")


def change_small_tensor(model: Path) -> None:
    changed = tensors(1)
    changed["b"][1] += 1
    save_file(changed, model / "base_model" / "unet" / "model.safetensors")


def rename_tensor(model: Path) -> None:
    changed = {("c" if name == "b" else name): tensor for name, tensor in tensors(1).items()}
    save_file(changed, model / "base_model" / "unet" / "model.safetensors")


def reshape_tensor(model: Path) -> None:
    save_file({**tensors(1), "a": tensors(1)["a"].view(32, 128)}, model / "base_model" / "unet" / "model.safetensors")


def change_config(model: Path) -> None:
    (model / "base_model" / "unet" / "config.json").write_text('{"class": "unut"}')


def swap_weights(model: Path) -> None:
    one, other = (model / "base_model" / name / "model.safetensors" for name in ("unet", "vae"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize(
    "change", [retrain, change_small_tensor, rename_tensor, reshape_tensor, change_config, swap_weights]
)
def test_another_model_has_a_different_fingerprint(model: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint(model)
    change(model)
    assert fingerprint(model) != before


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_fingerprint_of_one_file_covers_its_sidecar(tmp_path: Path, suffix: str) -> None:
    def made(name: str, seed: int) -> Path:
        path = tmp_path / name / "base_model" / f"{name}{suffix}"
        path.parent.mkdir(parents=True)
        if suffix == ".ckpt":
            torch.save({**tensors(seed), "large": torch.zeros(2_000_000)}, path)
        else:
            save_file(tensors(seed), path)
        return path.parents[1]

    one, same, other = made("one", 0), made("uno", 0), made("two", 2)
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)
    if suffix == ".safetensors":  # a .ckpt holds its own name
        assert fingerprint(one) == fingerprint(same)
    before = fingerprint(one)
    (one / "base_model" / "one.yaml").write_text("model: {params: {parameterization: v}}")
    assert fingerprint(one) != before


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"{}", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_broken_weights_have_a_fingerprint(model: Path, content: bytes) -> None:
    path = model / "base_model" / "unet" / "model.safetensors"
    path.write_bytes(content)
    before = fingerprint(model)
    path.write_bytes(content + b"x")
    assert fingerprint(model) != before


def test_a_large_file_is_not_read_whole(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sparse file of 4 GB with one tensor per megabyte, a piece of each tensor is read."""
    count, size = 4096, 2**20
    header = json.dumps(
        {f"t{n}": {"dtype": "U8", "shape": [size], "data_offsets": [n * size, (n + 1) * size]} for n in range(count)}
    ).encode()
    path = model / "base_model" / "unet" / "model.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + count * size)
    before = fingerprint(model)
    read = int(next(line for line in Path("/proc/self/io").read_text().splitlines() if "rchar" in line).split()[1])
    assert fingerprint(model) == before
    after = int(next(line for line in Path("/proc/self/io").read_text().splitlines() if "rchar" in line).split()[1])
    assert after - read < 64 * 2**20
    with path.open("r+b") as file:
        file.seek(8 + len(header) + 1000 * size + size // 2)
        file.write(b"x")
    assert fingerprint(model) != before


def test_a_fingerprint_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is not a model directory"):
        fingerprint(tmp_path)


def test_unreadable_weights_are_an_error(model: Path) -> None:
    weights = model / "base_model" / "unet" / "model.safetensors"
    weights.unlink()
    weights.mkdir()
    with pytest.raises(ArtifactError, match=f"{weights} cannot be read: Is a directory"):
        fingerprint(model)
