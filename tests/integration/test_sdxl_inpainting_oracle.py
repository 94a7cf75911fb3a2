"""An SDXL inpainting UNet (9 channels) gives the images of diffusers' pipeline, with an embedding in the prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.calls import pixels, psnr
from tests.integration.sdxl_oracle import SAME, SdxlOracle, drawn, request_for
from tests.sdxl_model import WIDTHS, write_sdxl
from triton_diffusers.adapters.embeddings import attach_embeddings
from triton_diffusers.api.request import Function
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.settings import Settings

PARTS = ("clip_l", "clip_g")
REQUESTS = {
    "part": request_for(Function.INPAINT, denoising_strength=0.7, steps=6),
    "whole": request_for(Function.INPAINT, denoising_strength=1.0, scheduler="DDIM", seed=1),
    "an embedding": request_for(Function.INPAINT, denoising_strength=1.0, prompt="a concept apple", seed=2),
}


def vectors(count: int = 2) -> dict[str, torch.Tensor]:
    """Return an embedding for both text encoders."""
    generator = torch.Generator().manual_seed(0)
    return {part: torch.randn(count, width, generator=generator) for part, width in zip(PARTS, WIDTHS, strict=True)}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    write_sdxl(folder / "base_model", unet_channels=9)
    (folder / "embeddings").mkdir()
    save_file(vectors(), folder / "embeddings" / "concept.safetensors")
    return folder


@pytest.fixture(scope="module")
def oracle(model_dir: Path) -> SdxlOracle:
    oracle = SdxlOracle(model_dir)
    found, pipeline = load_file(model_dir / "embeddings" / "concept.safetensors"), oracle.pipeline
    for part, encoder, tokenizer in zip(
        PARTS,
        (pipeline.text_encoder, pipeline.text_encoder_2),
        (pipeline.tokenizer, pipeline.tokenizer_2),
        strict=True,
    ):
        pipeline.load_textual_inversion(found[part], token="concept", text_encoder=encoder, tokenizer=tokenizer)
    return oracle


def test_images_are_those_of_diffusers(model_dir: Path, oracle: SdxlOracle) -> None:
    settings = Settings(model_dir=model_dir, dtype="float32", device="cpu", store="", enlarge="off")
    loop = EngineLoop(lambda: EagerEngine(load_components(settings)), settings, name="sd_base")
    loop.start()
    try:
        made = drawn(loop, REQUESTS)
    finally:
        loop.stop()
    found = {
        name: psnr(pixels(made[name][0]), oracle.draw(request, request.seed_of(0)))
        for name, request in REQUESTS.items()
    }
    assert min(found.values()) >= SAME, found


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"clip_l": torch.zeros(1, WIDTHS[0])}, "expected clip_l and clip_g"),
        ({"emb_params": torch.zeros(1, WIDTHS[0])}, "expected clip_l and clip_g"),
        (vectors() | {"clip_l": torch.zeros(1, WIDTHS[0])}, "its numbers of vectors differ between the text encoders"),
        (vectors() | {"clip_g": torch.zeros(2, WIDTHS[0])}, "its vectors have 32 numbers, those of this model's"),
    ],
)
def test_unusable_embeddings_are_left_out(
    oracle: SdxlOracle, tmp_path: Path, caplog: pytest.LogCaptureFixture, state: Any, reason: str
) -> None:
    save_file(state, tmp_path / "bad.safetensors")
    parts = oracle.pipeline
    attach_embeddings(tmp_path, [parts.tokenizer, parts.tokenizer_2], [parts.text_encoder, parts.text_encoder_2])
    assert reason in caplog.text
    assert "bad" not in parts.tokenizer.get_added_vocab()
