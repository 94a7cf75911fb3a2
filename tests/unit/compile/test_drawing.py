"""The probes, drawn by the eager engine on the emoji model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.fake_engine import FakeEngine
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.compile.drawing import draw
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.probes import CONTROLNET_FILE, calibration, probes
from triton_diffusers.compile.quality import psnr_of
from triton_diffusers.engines.eager import EagerEngine

ROOT = Path(__file__).resolve().parents[3]
SIDE, STEPS = 64, 4


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def test_the_probes_use_everything(components: Components, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    drawn = draw(
        lambda: EagerEngine(components),
        lambda side: probes(side, STEPS),
        tmp_path,
        SIDE,
        lambda done, total: said.append((done, total)),
    )
    assert drawn.side == SIDE
    assert {name: len(files) for name, files in drawn.files.items()} == {
        "picture": 1, "wide": 2, "variation": 1, "lora": 1, "cached": 1, "control": 1,
    }  # fmt: skip
    pictures = {file: opened(tmp_path / file) for files in drawn.files.values() for file in files}
    assert pictures["picture-0.png"].size == (SIDE, SIDE)
    assert pictures["wide-0.png"].size == (80, 48)
    assert psnr_of(pictures["wide-0.png"], pictures["wide-1.png"]) < 30
    # Without an effect of the LoRA, nothing would be verified by it; with too much, noise would be.
    assert 8 < psnr_of(pictures["picture-0.png"], pictures["lora-0.png"]) < 25
    assert 8 < psnr_of(pictures["lora-0.png"], pictures["cached-0.png"]) < 60
    assert 8 < psnr_of(pictures["lora-0.png"], pictures["control-0.png"]) < 25
    assert not (tmp_path / CONTROLNET_FILE).exists(), "it would be as large as the model"
    assert drawn.peak_bytes > 100e6
    done, total = zip(*said, strict=True)
    assert set(total) == {7 * STEPS}
    assert list(done) == sorted(done)


def test_calibration_draws_something_else() -> None:
    checked = {request.prompt for request in probes(SIDE, STEPS).values()}
    shown = {request.prompt for request in calibration(SIDE, STEPS).values()}
    assert len(shown) == 4
    assert [len(request.controls) for request in calibration(SIDE, STEPS).values()] == [0, 1, 0, 1]
    assert not checked & shown


def test_without_a_side_the_models_own(tmp_path: Path) -> None:
    drawn = draw(
        FakeEngine, lambda side: {"picture": probes(side, 2)["picture"]}, tmp_path, 0, lambda done, total: None
    )
    assert drawn.side == FakeEngine.native_side
    assert opened(tmp_path / "picture-0.png").size == (64, 64)


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    class Broken(FakeEngine):
        def decode(self, latents: object) -> object:  # type: ignore[override]
            raise RuntimeError("no such kernel")

    with pytest.raises(BuildError, match=r"the picture 'picture' cannot be drawn: RuntimeError: no such kernel"):
        draw(Broken, lambda side: {"picture": probes(side, 2)["picture"]}, tmp_path, 64, lambda done, total: None)


def test_an_engine_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    def broken() -> FakeEngine:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        draw(broken, lambda side: {}, tmp_path, 64, lambda done, total: None)


def test_peak_memory_grows_with_what_is_held() -> None:
    """In a process of its own: what other tests have held, and have given back, would hide it."""
    program = """
from triton_diffusers.compile.drawing import peak_bytes

before = peak_bytes()
held = b"x" * 300_000_000
del held
print(peak_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 250_000_000 < int(done.stdout) < 400_000_000
