"""``drawing.json``: a model directory's own defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import tensors
from tests.unit.fake_engine import FakeEngine
from triton_diffusers.api.contract import INPUTS
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.checkpoints.load import LoadError
from triton_diffusers.inflight.admission import Admission
from triton_diffusers.inflight.drawing_file import DrawingFile
from triton_diffusers.settings import Settings

OWN = {"steps": 4, "guidance_scale": 1.5, "scheduler": "euler_ancestral"}


def write(folder: Path, content: Any) -> Path:
    path = folder / "drawing.json"
    path.write_text(json.dumps(content))
    return path


def test_a_directory_without_the_file_has_the_defaults_of_stable_diffusion(tmp_path: Path) -> None:
    expected = ModelDefaults(side=512, steps=50, guidance_scale=7.0, scheduler="DPM++ 2M")
    assert DrawingFile.read(tmp_path).defaults(ModelDefaults(side=512)) == expected
    assert DrawingFile.read(tmp_path).enlarge is False


def test_a_directorys_defaults_apply_to_fields_that_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, OWN)
    settings = Settings(model_dir=tmp_path)
    defaults = Admission(FakeEngine(), settings).defaults

    def decoded(**fields: Any) -> tuple[int, float, str]:
        request = decode_request(read_values(tensors(**fields), INPUTS), settings, defaults)
        return request.steps, request.guidance_scale, request.scheduler

    assert decoded() == (4, 1.5, "Euler a")
    assert decoded(steps=0, cfg_scale=0.0, scheduler="") == (4, 1.5, "Euler a")
    assert decoded(steps=50, cfg_scale=7.0, scheduler="DPM++ 2M") == (50, 7.0, "DPM++ 2M")


def test_default_steps_respect_the_operators_limit(tmp_path: Path) -> None:
    settings = Settings(max_steps=20)
    request = decode_request(read_values(tensors(), INPUTS), settings, ModelDefaults(side=64))
    assert request.steps == 20


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"steps": 0}, "steps: 0 is invalid: must be a whole number, at least 1"),
        ({"steps": True}, "steps: True is invalid: must be a whole number"),
        ({"steps": 2.0}, "steps: 2.0 is invalid: must be a whole number"),
        ({"guidance_scale": 0.5}, "guidance_scale: 0.5 is invalid: must be a number, at least 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale: nan is invalid"),
        ({"scheduler": "magic"}, "scheduler: 'magic' is invalid: must be the name of a scheduler"),
        ({"scheduler": 3}, "scheduler: 3 is invalid"),
        ({"enlarge": "yes"}, "enlarge: 'yes' is invalid: must be true or false"),
    ],
)
def test_an_invalid_value_is_named(tmp_path: Path, content: Any, error: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(LoadError, match=f"^{path}: {error}"):
        DrawingFile.read(tmp_path)
