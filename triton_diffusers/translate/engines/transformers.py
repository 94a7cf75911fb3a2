"""Marian models by transformers, where there is no CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import MarianMTModel, MarianTokenizer

from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines.protocol import most_output_tokens
from triton_diffusers.translate.folder import english_pieces


class TransformersEngine:
    """Runs a Marian folder in float32."""

    def __init__(self, folder: Path, *, beams: int) -> None:
        self._tokenizer = MarianTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = MarianMTModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        self._beams = beams
        pieces = english_pieces(folder)
        self._unsayable = [number for piece, number in self._tokenizer.get_vocab().items() if piece not in pieces]

    @classmethod
    def load(cls, folder: Path, settings: Settings) -> TransformersEngine:
        """Raises ``LoadError``."""
        try:
            return cls(folder, beams=settings.translate_beams)
        except Exception as error:
            raise LoadError(f"{folder} cannot be loaded: {one_line(error)}") from error

    @torch.inference_mode()
    def translate(self, texts: Sequence[str]) -> list[str]:
        """One English text for each Chinese one."""
        batch = self._tokenizer(list(texts), return_tensors="pt", padding=True)
        tokens = self._model.generate(
            **batch,
            num_beams=self._beams,
            do_sample=False,
            suppress_tokens=self._unsayable,
            renormalize_logits=True,  # beams are compared as if there were no other tokens
            max_length=None,
            max_new_tokens=most_output_tokens(batch["input_ids"].shape[1]),
        )
        kept = [
            row[: 1 + most_output_tokens(length)]  # it begins with the padding that decoding began with
            for row, length in zip(tokens.tolist(), batch["attention_mask"].sum(1).tolist(), strict=True)
        ]
        decoded: list[str] = self._tokenizer.batch_decode(kept, skip_special_tokens=True)
        return decoded
