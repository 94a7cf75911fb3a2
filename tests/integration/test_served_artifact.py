"""An artifact that was built before, under Triton: what it draws is what the eager engine draws, fixed sizes too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from PIL import Image

from tests.controlnet_files import random_controlnet, save_folder
from tests.integration.calls import Calls, pixels, png, psnr, small
from tests.integration.conftest import ROOT, TritonStarter
from triton_diffusers.compile.options import MIN_PSNR, PSNR_SPREAD
from triton_diffusers.engines.compiled import fixed_name
from triton_diffusers.engines.compilers import COMPILERS

pytest.importorskip("openvino")

WITHIN = 1200.0  # seconds; generous, for loaded machines
PRECISION = COMPILERS["openvino"]().precisions[0]  # what suits this processor
SIDE = 128
PROMPT = "a red apple on a blue background"  # whose image rounding moves little
FULL: Mapping[str, Any] = {"prompt": PROMPT, "width": SIDE, "height": SIDE, "steps": 8}
GRADIENT = png(Image.linear_gradient("L").convert("RGB").resize((SIDE, SIDE)))
FLAT, HIGH_CONTRAST = "lora/flat.safetensors", "lora/high-contrast.safetensors"
CONTROLLED = "controlnet"
# Of these, a graph of the UNet for this size takes the first three.
ASKED: Mapping[str, Mapping[str, Any]] = {
    "image": FULL,
    "variation": {**FULL, "func_name": "i2i", "image": GRADIENT, "denoising_strength": 0.6},
    "two": {**FULL, "image_num": 2},
    "another size": {**FULL, "width": 96, "height": 64},
    "lora": {**FULL, "lora_path": [FLAT], "lora_attn": [1.0]},
    "two loras": {**FULL, "lora_path": [FLAT, HIGH_CONTRAST], "lora_attn": [0.5, -0.5]},
    CONTROLLED: {**FULL, "image": GRADIENT},
}
ADDS = ("lora", "two loras", CONTROLLED)
"""Cases that equal "image" but for what they add."""


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Return the emoji model with a ControlNet, and an artifact of its own."""
    copy = tmp_path / "模型 é🎈"  # which compilers and their files have to take, too
    shutil.copytree(ROOT / "models" / "emoji", copy, ignore=shutil.ignore_patterns("optimized_model"))
    config = UNet2DConditionModel.load_config(copy / "base_model" / "unet")
    save_folder(random_controlnet(config, 1), copy / "controlnet")
    build = [sys.executable, str(ROOT / "build_optimized.py"), f"--model={copy}", "--engine=openvino", "--steps=4"]
    done = subprocess.run(build, capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stderr
    return copy


@pytest.fixture
def drawn(start_triton: TritonStarter, model_dir: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that starts a server, asks for everything and stops it; gives the images by name."""

    def draw(**settings: str) -> dict[str, Any]:
        env = {f"TRITON_DIFFUSERS_{name.upper()}": value for name, value in settings.items()}
        calls = Calls(start_triton(env=env, model_dir=model_dir, args=["--func-name=all"]))
        images = {}
        for name, fields in ASKED.items():
            reply = calls.grpc("sd_controlnet" if name == CONTROLLED else "sd_base", **small(**fields))
            assert reply["success"] == 1, (name, reply)
            assert reply["use_blade"] is (settings["engine"] == "openvino"), name
            images[name] = np.stack([pixels(image) for image in reply["images"]])
        calls.close()
        calls.server.stop()
        return images

    return draw


@pytest.mark.heavy
@pytest.mark.timeout(2 * WITHIN)
def test_the_compiled_engine_matches_the_eager_one(
    drawn: Callable[..., dict[str, Any]], tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    eager = drawn(engine="eager", dtype="float32")
    free = drawn(engine="openvino")
    fixed = drawn(engine="openvino", fixed_sizes=f"{SIDE}x{SIDE}", cache_dir=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").rglob(f"{fixed_name(SIDE // 8, SIDE // 8)}*")), "a graph for the size was loaded"
    for made_by, images in (("free", free), ("fixed", fixed)):
        like = {name: psnr(image, eager[name]) for name, image in images.items()}
        for name, decibels in like.items():
            record_testsuite_property(f"{name}, {made_by}, dB", round(decibels, 1))
        assert mean(like.values()) >= MIN_PSNR[PRECISION], like
        assert min(like.values()) >= MIN_PSNR[PRECISION] - PSNR_SPREAD[PRECISION], like
        for name in ADDS:
            assert like[name] > psnr(eager[name], eager["image"]), f"{name} is left out"
