"""The tasks of a worker: calibration data reaches compilers unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.conftest import ROOT
from triton_diffusers.compile import stages
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.stages import _read, _write, do
from triton_diffusers.compile.tasks import CalibrateTask, CompileTask


def test_recorded_inputs_are_read_in_order(tmp_path: Path) -> None:
    calls = [
        (torch.full((2, 4), float(call)), torch.tensor([call]), torch.zeros(1, 0, 5), torch.ones(2, 3).T)
        for call in range(12)
    ]
    _write(tmp_path / "unet.safetensors", calls)
    found = _read(tmp_path / "unet.safetensors")
    assert len(found) == 12
    for before, after in zip(calls, found, strict=True):
        assert [tensor.shape for tensor in after] == [tensor.shape for tensor in before]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_an_empty_recording_is_read_as_empty(tmp_path: Path) -> None:
    _write(tmp_path / "unet.safetensors", [])
    assert _read(tmp_path / "unet.safetensors") == []


def test_calibration_records_the_requested_graphs(tmp_path: Path) -> None:
    task = CalibrateTask(
        model_dir=ROOT / "models" / "emoji", cache_dir=tmp_path, graphs=("unet",), steps=1, side=64, folder=tmp_path
    )
    do(task, lambda done, total: None)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["unet.safetensors"]
    calls = _read(tmp_path / "unet.safetensors")
    assert len(calls) == 4, "one step of each image"
    for latents, timesteps, states, *_, last_residual in calls:
        assert (latents.shape, timesteps.shape, states.shape[:2]) == ((2, 4, 8, 8), (2,), (2, 77))
        assert latents.std() > 0.5
        assert last_residual.ndim == 4
    assert sum(call[-1].numel() > 1 for call in calls) == 2, "half of them have a ControlNet"


@pytest.mark.parametrize(
    ("said", "error", "told"),
    [
        ("basic_ios::clear: iostream error", BuildError, "unet cannot be written: the disk is full"),
        ("no such operation", RuntimeError, "^no such operation$"),
    ],
)
def test_openvinos_write_error_becomes_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, error: type[Exception], told: str
) -> None:
    """OpenVINO's own message names neither the file nor the reason."""

    class Compiler:
        def compile(self, *_: object) -> None:
            raise RuntimeError(said)

    monkeypatch.setattr(stages, "load_components", lambda settings: None)
    monkeypatch.setattr(stages, "GRAPHS", {"unet": lambda components: None})
    monkeypatch.setattr(stages, "COMPILERS", {"openvino": Compiler})
    task = CompileTask(
        model_dir=tmp_path, cache_dir=tmp_path, engine="openvino", precision="float32", graph="unet",
        folder=tmp_path / "unet",
    )  # fmt: skip
    with pytest.raises(error, match=told):
        do(task, lambda done, total: None)
