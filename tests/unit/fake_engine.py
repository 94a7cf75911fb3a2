"""A small engine for tests of the loop: exact, instant, and stopped or broken at will."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from triton_diffusers.prompts import Tokens

WITHIN = 60.0  # seconds; what happens at once on an idle machine must happen within this on any

# Words of a prompt that do harm.
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
    """Where the engine's thread waits before each UNet call while it is held. Open at first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._permits = 0
        self._passing = False
        self.passed = 0

    def hold(self) -> None:
        """Let no call through from now on."""
        with self._changed:
            self._open, self._permits = False, 0

    def open(self) -> None:
        """Let all calls through."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def allow(self, calls: int) -> None:
        """Let so many calls through, and wait until the next one stands before the turnstile."""
        with self._changed:
            self._permits += calls
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._permits == 0 and self._passing, WITHIN), "no call came"

    def pass_through(self) -> None:
        """The engine's side."""
        with self._changed:
            self._passing = True
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open or self._permits > 0, WITHIN), "nobody was let through"
            self._permits = max(0, self._permits - 1)
            self._passing = False
            self.passed += 1


class BytesTokenizer:
    """One token for each byte, with a beginning and an end, as CLIP's tokenizer answers."""

    model_max_length = 77
    _BEGIN, _END = 256, 257

    def __call__(
        self, text: str, *, padding: str | bool, truncation: bool, max_length: int | None = None, verbose: bool = True
    ) -> Mapping[str, list[int]]:
        ids = [self._BEGIN, *text.encode(), self._END]
        if truncation and max_length is not None:
            ids = [*ids[: max_length - 1], self._END] if len(ids) > max_length else ids
        padded = [self._END] * ((max_length or 0) - len(ids)) if padding == "max_length" else []
        return {"input_ids": ids + padded, "attention_mask": [1] * len(ids) + [0] * len(padded)}

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return bytes(number for number in ids if number < self._BEGIN).decode(errors="replace")


class FakeEngine:
    """Satisfies ``Engine``. Rows of a call do not touch one another, so batched and alone agree to the bit."""

    optimized = False
    latent_channels = 4
    pixels_per_latent = 8
    native_side = 64
    scheduler_config: Mapping[str, Any] = SCHEDULER_CONFIG

    def __init__(self, is_unsafe: Callable[[np.ndarray[Any, Any]], bool] = lambda pixels: False) -> None:
        self.tokenizer = BytesTokenizer()
        self.turnstile = Turnstile()
        self.is_unsafe = is_unsafe

    def encode_prompts(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        states = torch.zeros(len(prompts), 77, 3)
        for row, prompt in zip(states, prompts, strict=True):
            text = self.tokenizer.decode(prompt.ids)
            row[0] = torch.tensor([zlib.crc32(text.encode()) / 2**32, RAISES in text, GIVES_NAN in text])
        return states

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        self.turnstile.pass_through()
        tone, raises, gives_nan = states[:, 0].unbind(1)
        if raises.any():
            raise RuntimeError("the prompt says boom")
        prediction = latents * 0.5 + (tone + timesteps / 1000)[:, None, None, None]
        prediction[gives_nan > 0] = torch.nan
        return prediction

    def decode(self, latents: torch.Tensor) -> np.ndarray[Any, Any]:
        # The sine keeps the least change of any latent, however large, visible.
        return np.sin(latents[:3].numpy()).repeat(8, axis=1).repeat(8, axis=2)
