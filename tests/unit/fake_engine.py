"""Fake engine for tests of the loop: exact, instant, and stopped or broken at will."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from tests.waiting import WITHIN
from triton_diffusers.adapters.controlnet import ControlNetWeights
from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.engines import Batch, ControlNet
from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.families.family import Family
from triton_diffusers.families.guidance import GUIDANCE, ClassifierFree
from triton_diffusers.families.latents import LatentFormat
from triton_diffusers.families.schedules import NoiseSchedule
from triton_diffusers.families.sd.family import StableDiffusion
from triton_diffusers.prompts import Tokens

# Words in a prompt that make the engine fail.
RAISES = "boom"
GIVES_NAN = "nan"

SCHEDULER_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


class Turnstile:
    """Gate for the engine's thread before each UNet call; initially open."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._permits = 0
        self._passing = False
        self.passed = 0

    def hold(self) -> None:
        """Let no further calls through."""
        with self._changed:
            self._open, self._permits = False, 0

    def open(self) -> None:
        """Let all calls through."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def allow(self, calls: int) -> None:
        """Let ``calls`` calls through, and wait until the next one is at the turnstile."""
        with self._changed:
            self._permits += calls
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._permits == 0 and self._passing, WITHIN), "no call came"

    def wait_for(self, calls: int) -> bool:
        """Wait until ``calls`` calls have passed; return False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self.passed >= calls, WITHIN)

    def pass_through(self) -> None:
        """Wait for permission, as the engine does before a UNet call."""
        with self._changed:
            self._passing = True
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open or self._permits > 0, WITHIN), "nobody was let through"
            self._permits = max(0, self._permits - 1)
            self._passing = False
            self.passed += 1
            self._changed.notify_all()


class BytesTokenizer:
    """Tokenizer with one token per byte and CLIP's interface."""

    model_max_length = 77
    bos_token_id = 256
    eos_token_id = pad_token_id = 257

    def __call__(
        self, texts: Sequence[str], *, add_special_tokens: bool, verbose: bool
    ) -> Mapping[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [list(text.encode()) for text in texts]}

    def get_added_vocab(self) -> Mapping[str, int]:
        return {}

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return bytes(number for number in ids if number < self.bos_token_id).decode(errors="replace")


FAMILY = StableDiffusion(
    latents=LatentFormat(channels=4, pixels=8),
    denoiser_channels=4,
    text_layers=2,
    guidance=ClassifierFree(),
    schedule=NoiseSchedule(SCHEDULER_CONFIG),
    defaults=ModelDefaults(side=64),
    denoiser_config={},
)


class FakeEngine:
    """Implementation of ``Engine`` whose rows do not affect each other, so that batching is exact to the bit."""

    optimized = False
    device = torch.device("cpu")
    family: Family = FAMILY
    lora_targets: Mapping[str, tuple[int, ...]] = MappingProxyType({"unet.conv_in": (4, 4, 3, 3)})

    def __init__(self, is_unsafe: Callable[[np.ndarray[Any, Any]], bool] = lambda pixels: False) -> None:
        self.tokenizer = BytesTokenizer()
        self.turnstile = Turnstile()
        self.is_unsafe = is_unsafe

    def encode_prompts(self, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> Inputs:
        states = torch.zeros(len(chunks), 77, 3)
        for row, chunk in zip(states, chunks, strict=True):
            text = self.tokenizer.decode(chunk.ids)
            tone = zlib.crc32(f"{text} {clip_skip}".encode()) / 2**32
            row[0] = torch.tensor([tone, RAISES in text, GIVES_NAN in text])
        return {STATES: states}

    def computes_apart(self, loras: LoraSet | None) -> bool:
        return False

    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        self.turnstile.pass_through()
        tone, raises, gives_nan = batch.states[:, 0].unbind(1)
        if raises.any():
            raise RuntimeError("the prompt says boom")
        # Half of the latents' contribution comes from deep features.
        deep = batch.latents * 0.25 if batch.deep is None else batch.deep
        prediction = batch.latents * 0.25 + deep + (tone + batch.timesteps / 1000)[:, None, None, None]
        prediction[gives_nan > 0] = torch.nan
        if GUIDANCE in batch.inputs:
            assert len(batch.inputs[GUIDANCE]) == len(batch), "guidance is for all rows"
            prediction = prediction + batch.inputs[GUIDANCE].mean(dim=1)[:, None, None, None]
        if batch.residuals is not None:
            assert len(batch.residuals[0]) == len(batch), "residuals are for all rows"
            prediction = prediction + batch.residuals[0]
        return prediction, deep

    def make_controlnet(self, weights: ControlNetWeights) -> ControlNet:
        raise NotImplementedError("tests with ControlNets define their own")

    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        tone = torch.from_numpy(pixels[:1, ::8, ::8].copy()).repeat(4, 1, 1)
        return torch.stack([tone, torch.zeros_like(tone)])

    def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
        # The sine makes the smallest change of any latent visible, however large it is.
        return np.sin(latents[:3].numpy()).repeat(8, axis=1).repeat(8, axis=2)
