"""Trial of an engine before it serves; a failure names the part of the model."""

from __future__ import annotations

import copy
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from tests.unit.checkpoints.chinese import make_chinese
from tests.unit.conftest import ROOT, request_for
from tests.unit.fake_engine import FAMILY, SCHEDULER_CONFIG, FakeEngine
from triton_diffusers.checkpoints.load import Components, LoadError, load_components, load_skeleton
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.graphs.text_encoder import text_encoder_graph
from triton_diffusers.families.conditioning import STATES
from triton_diffusers.families.schedules import NoiseSchedule
from triton_diffusers.inflight.text import PromptEncoder
from triton_diffusers.inflight.trial import try_out
from triton_diffusers.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(model_dir=tmp_path / "mine", cache_dir=tmp_path)


def test_working_model_passes_the_trial_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    with caplog.at_level(logging.WARNING):
        try_out(engine, settings)
    assert engine.turnstile.passed == 1
    assert caplog.messages == []


def test_the_emoji_model_passes(components: Components, settings: Settings) -> None:
    try_out(EagerEngine(components), settings)


def raises(*args: Any, **keywords: Any) -> Any:
    raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")


@pytest.mark.parametrize(
    ("method", "part"),
    [("encode_prompts", "text_encoder"), ("predict", "unet"), ("decode", "vae"), ("is_unsafe", "safety_checker")],
)
def test_failed_trial_names_the_part(settings: Settings, method: str, part: str) -> None:
    engine = FakeEngine()
    setattr(engine, method, raises)
    reason = "RuntimeError: mat1 and mat2 shapes "
    expected = f"{settings.model_dir} cannot generate an image: its {part} failed the trial: {reason}"
    with pytest.raises(LoadError, match=f"^{expected}cannot be multiplied$"):
        try_out(engine, settings)


def test_failed_trial_names_the_scheduler(settings: Settings) -> None:
    engine = FakeEngine()
    engine.family = replace(FAMILY, schedule=NoiseSchedule({**SCHEDULER_CONFIG, "beta_schedule": "somebody's"}))
    with pytest.raises(LoadError, match="its scheduler failed the trial: NotImplementedError: somebody's"):
        try_out(engine, settings)


def test_overflowing_autoencoder_is_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    class Overflowing(FakeEngine):
        def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
            return super().decode(latents) if precise else np.full((3, 64, 64), np.nan, np.float32)

    try_out(Overflowing(), settings)
    (said,) = caplog.messages
    assert said == (
        f"{settings.model_dir}: the model's autoencoder overflowed in this precision; images were decoded in float32"
    )


def test_a_safety_checker_of_another_size_fails_at_the_start(components: Components, settings: Settings) -> None:
    extractor = copy.deepcopy(components.feature_extractor)
    extractor.size, extractor.crop_size = {"shortest_edge": 96}, {"height": 96, "width": 96}
    with pytest.raises(LoadError, match="its safety_checker failed the trial: "):
        try_out(EagerEngine(replace(components, feature_extractor=extractor)), settings)


def test_weights_beyond_half_precision_fail_at_the_start(components: Components, settings: Settings) -> None:
    unet = copy.deepcopy(components.denoiser)
    with torch.no_grad():
        unet.conv_in.weight.mul_(1e38)
    with pytest.raises(LoadError, match=r"its unet failed the trial: the model \(unet\) gave NaN or infinite values"):
        try_out(EagerEngine(replace(components, denoiser=unet)), settings)


SIZE = (64, 64)


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the emoji model with a Chinese BERT as its text encoder."""
    folder = tmp_path_factory.mktemp("chinese")
    shutil.copytree(ROOT / "models" / "emoji" / "base_model", folder / "base_model")
    make_chinese(folder / "base_model", width=192)
    return Settings(model_dir=folder, dtype="float32", device="cpu", close_safety=True)


@torch.inference_mode()
def test_a_chinese_text_encoder_encodes_as_diffusers_has_it(chinese: Settings) -> None:
    loaded = load_components(chinese)
    engine = EagerEngine(loaded)
    try_out(engine, chinese)
    pipeline = StableDiffusionPipeline(
        vae=loaded.vae,
        text_encoder=loaded.text_encoder,
        tokenizer=loaded.tokenizer,
        unet=loaded.denoiser,
        scheduler=DDIMScheduler.from_config(loaded.family.schedule.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for prompt in ("红苹果", "", "红苹果在蓝色背景上，猫狗。"):
        positive, negative = pipeline.encode_prompt(prompt, "cpu", 1, True, negative_prompt="猫")
        warnings: list[str] = []
        encoded = PromptEncoder(engine, chinese).encode(request_for(prompt, negative_prompt="猫"), SIZE, None, warnings)
        assert warnings == [], "it reads Chinese"
        torch.testing.assert_close(encoded.at(0, 2)[STATES], torch.cat([negative, positive]))
    second = PromptEncoder(engine, chinese).encode(request_for("红", clip_skip=2), SIZE, None, []).at(0, 1)[STATES]
    assert second.shape == positive.shape
    assert not torch.allclose(second, positive)


def test_a_chinese_text_encoder_is_left_to_eager(chinese: Settings) -> None:
    with pytest.raises(LoadError, match=r"text_encoder: compiled engines need CLIP's text encoder"):
        load_skeleton(chinese, torch.float32)
    with pytest.raises(LoadError, match="BertModel is unsupported by compiled engines"):
        text_encoder_graph(load_components(chinese).text_encoder)
