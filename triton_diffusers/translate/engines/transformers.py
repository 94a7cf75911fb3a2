"""Marian models with transformers, for systems without CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import MarianMTModel, MarianTokenizer

from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines.protocol import max_output_tokens, min_score
from triton_diffusers.translate.folder import english_pieces


class TransformersEngine:
    """Runs a Marian folder in float32."""

    def __init__(self, folder: Path, *, beams: int) -> None:
        self._tokenizer = MarianTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = MarianMTModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        self._beams = beams
        self._min_score = min_score(folder)
        pieces = english_pieces(folder)
        self._unsayable = [number for piece, number in self._tokenizer.get_vocab().items() if piece not in pieces]

    @classmethod
    def load(cls, folder: Path, settings: Settings) -> TransformersEngine:
        """Load a Marian folder. Raises ``LoadError``."""
        try:
            return cls(folder, beams=settings.translate_beams)
        except Exception as error:
            raise LoadError(f"{folder} cannot be loaded: {one_line(error)}") from error

    @torch.inference_mode()
    def translate(self, texts: Sequence[str]) -> list[str | None]:
        """Return one English text for each Chinese one, or None if the model does not know it."""
        batch = self._tokenizer(list(texts), return_tensors="pt", padding=True)
        scored = self._min_score is not None
        generated = self._model.generate(
            **batch,
            num_beams=self._beams,
            do_sample=False,
            suppress_tokens=self._unsayable,
            renormalize_logits=True,  # scores as if suppressed tokens did not exist
            max_length=None,
            max_new_tokens=max_output_tokens(batch["input_ids"].shape[1]),
            return_dict_in_generate=True,
            output_scores=scored,
        )
        lengths = batch["attention_mask"].sum(1).tolist()
        kept = [
            row[: 1 + max_output_tokens(length)]  # plus the padding that starts decoding
            for row, length in zip(generated.sequences.tolist(), lengths, strict=True)
        ]
        decoded: list[str] = self._tokenizer.batch_decode(kept, skip_special_tokens=True)
        known = self._known(batch["input_ids"], generated) if scored else [True] * len(decoded)
        return [text if knows else None for text, knows in zip(decoded, known, strict=True)]

    def _known(self, source: torch.Tensor, generated: Any) -> list[bool]:
        scores = self._model.compute_transition_scores(
            generated.sequences, generated.scores, getattr(generated, "beam_indices", None)
        )
        said = generated.sequences[:, 1:][:, : scores.shape[1]] != self._tokenizer.pad_token_id
        means = torch.where(said, scores, 0).sum(1) / said.sum(1)
        spelt = (source != self._tokenizer.unk_token_id).all(1)
        return [bool(known) for known in spelt & (means >= self._min_score)]
