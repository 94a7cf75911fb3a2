"""Non-finite values are detected at every interface, retried in float32 where possible, and fail one job only."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of, made_alone
from triton_diffusers.api.request import Function
from triton_diffusers.errors import EngineFailure
from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.inflight.autoencoder import decode, encode
from triton_diffusers.inflight.control import Control, residuals_of
from triton_diffusers.inflight.job import JobState


class Overflowing(FakeEngine):
    """Engine whose autoencoder overflows, in float32 too if ``hopeless``."""

    hopeless = False

    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        moments = super().encode(pixels)
        if self.hopeless or not precise:
            moments[0, 0, 0, 0] = torch.inf
        return moments

    def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
        decoded = super().decode(latents)
        if self.hopeless or not precise:
            decoded[0, 0, 0] = np.nan
        return decoded


class Hopeless(Overflowing):
    hopeless = True


def png(size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "orange").save(buffer, "PNG")
    return buffer.getvalue()


def test_an_overflowing_decoder_is_computed_in_float32_with_one_warning(start_loop: StartLoop) -> None:
    loop = start_loop(Overflowing())
    finish(loop, job := loop.submit(request_for(image_num=2)))
    assert images_of(job) == made_alone(start_loop, request_for(image_num=2))
    assert job.result is not None
    assert job.result.warnings == (
        "the model's autoencoder overflowed in this precision; images were decoded in float32",
    )


def test_an_overflowing_encoder_is_computed_in_float32_with_a_warning(start_loop: StartLoop) -> None:
    request = request_for(function=Function.IMAGE_TO_IMAGE, image=png())
    loop = start_loop(Overflowing())
    finish(loop, job := loop.submit(request))
    assert images_of(job) == made_alone(start_loop, request)
    assert job.result is not None
    assert job.result.warnings[0] == (
        "the model's autoencoder overflowed in this precision; the input image was encoded in float32"
    )


@pytest.mark.parametrize("fields", [{}, {"function": Function.IMAGE_TO_IMAGE, "image": png()}])
def test_an_autoencoder_that_overflows_in_float32_too_is_an_error(
    start_loop: StartLoop, fields: dict[str, Any]
) -> None:
    loop = start_loop(Hopeless())
    finish(loop, job := loop.submit(request_for(**fields)))
    assert job.state is JobState.FAILED
    assert isinstance(job.error, EngineFailure)
    assert "autoencoder (vae) gave NaN or infinite values for" in str(job.error)


def test_finite_values_are_computed_once() -> None:
    class Once(FakeEngine):
        def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
            assert not precise
            return super().encode(pixels)

        def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
            assert not precise
            return super().decode(latents)

    warnings: list[str] = []
    assert encode(Once(), np.zeros((3, 64, 64), np.float32), warnings).isfinite().all()
    assert np.isfinite(decode(Once(), torch.zeros(4, 8, 8), warnings)).all()
    assert warnings == []


def test_a_prediction_that_is_not_finite_fails_its_job_at_that_step(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for("nan", steps=20)))
    assert (str(job.error), engine.turnstile.passed) == (
        "the model (unet) gave NaN or infinite values; try other settings or another precision",
        1,
    )


def test_text_that_is_not_finite_fails_its_job_and_is_not_cached(start_loop: StartLoop) -> None:
    class Mute(FakeEngine):
        broken = True

        def encode_prompts(self, chunks: Any, clip_skip: int, loras: Any = None) -> Inputs:
            encoded = super().encode_prompts(chunks, clip_skip, loras)
            return {STATES: encoded[STATES] * torch.inf} if self.broken else encoded

    engine = Mute()
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for()))
    assert "text encoder gave NaN or infinite values" in str(job.error)
    engine.broken = False
    finish(loop, job := loop.submit(request_for()))
    assert images_of(job) == made_alone(start_loop, request_for())


class Net:
    """ControlNet with one constant residual of ``value``."""

    nbytes = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, latents: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
        return (torch.full_like(latents, self.value),)


def test_non_finite_residuals_name_the_controlnet() -> None:
    def residuals(*values: float) -> Any:
        controls = [(Control(Net(value), torch.zeros(3, 8, 8), 1.0),) for value in values]
        rows = len(controls)
        return residuals_of(controls, torch.zeros(rows, 4, 1, 1), torch.zeros(rows), {STATES: torch.zeros(rows, 77, 3)})

    assert residuals(1.0, 2.0)[0][:, 0, 0, 0].tolist() == [1, 2]
    with pytest.raises(EngineFailure, match="a ControlNet gave NaN or infinite values"):
        residuals(1.0, torch.inf)
