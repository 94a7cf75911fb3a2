"""Marian models with CTranslate2, which needs PyTorch and transformers only for the conversion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import sentencepiece

from triton_diffusers.checkpoints.conversion_cache import converted
from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines.protocol import max_output_tokens, min_score
from triton_diffusers.translate.folder import english_pieces, marian_files, marian_weights

# Each token reads all weights: more threads would not find more memory bandwidth.
_MAX_THREADS = 4
_END = "</s>"
_UNKNOWN = "<unk>"


class CTranslate2Engine:
    """Runs a model converted from a Marian folder."""

    def __init__(self, model: Path, folder: Path, *, beams: int) -> None:
        """``model`` is the output of ``convert`` for the Marian ``folder``; it runs in the precision it was made in."""
        self._source, self._target = (
            sentencepiece.SentencePieceProcessor(str(folder / f"{side}.spm")) for side in ("source", "target")
        )
        # The default is four threads, which on fewer cores mostly wait for each other.
        threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
        self._translator = ctranslate2.Translator(str(model), device="cpu", intra_threads=threads)
        self._beams = beams
        self._min_score = min_score(folder)

    @classmethod
    def load(cls, folder: Path, settings: Settings) -> CTranslate2Engine:
        """Load a Marian folder with matrices in int8; it is converted once. Raises ``LoadError``."""
        weights = marian_weights(folder)
        model = converted(
            weights, settings.cache_dir, lambda _, target: convert(folder, target), beside=marian_files(folder)
        )
        try:
            return cls(model, folder, beams=settings.translate_beams)
        except (RuntimeError, OSError, ValueError) as error:
            raise LoadError(f"{folder} cannot be loaded: {one_line(error)}") from error

    def translate(self, texts: Sequence[str]) -> list[str | None]:
        """Return one English text for each Chinese one, or None if the model does not know it."""
        tokens = [[*self._source.encode(text, out_type=str), _END] for text in texts]
        results = self._translator.translate_batch(
            tokens,
            beam_size=self._beams,
            max_decoding_length=max_output_tokens(max(map(len, tokens))),
            return_scores=self._min_score is not None,
        )
        return [
            self._text(result.hypotheses[0][: max_output_tokens(len(source))]) if self._knows(source, result) else None
            for source, result in zip(tokens, results, strict=True)
        ]

    def _knows(self, source: Sequence[str], result: Any) -> bool:
        if self._min_score is None:
            return True
        unknown = self._source.unk_id()
        spelt = all(self._source.piece_to_id(piece) != unknown for piece in source)
        return spelt and result.scores[0] >= self._min_score

    def _text(self, pieces: Sequence[str]) -> str:
        text: str = self._target.decode([piece for piece in pieces if piece != _UNKNOWN])
        return text


def convert(folder: Path, target: Path, quantization: str = "int8_float32") -> None:
    """Convert the Marian ``folder`` to CTranslate2's format in the existing folder ``target``. Raises ``LoadError``.

    The decoder's vocabulary is reduced to the English pieces: choosing each token among half as many saves half of that
    work, which is a good part of the whole.
    """
    from ctranslate2.converters import TransformersConverter

    try:
        spec = TransformersConverter(str(folder))._load()  # the steps of its convert(), with the reduction between
        _keep_outputs(spec, english_pieces(folder))
        spec.validate()
        spec.optimize(quantization=quantization)
        spec.save(str(target))
    except Exception as error:
        raise LoadError(f"{folder} cannot be converted for ctranslate2: {one_line(error)}") from error


def _keep_outputs(spec: Any, pieces: frozenset[str]) -> None:
    """Reduce the output vocabulary of CTranslate2's ``spec`` to ``pieces``."""
    (tokens,) = spec._vocabularies["target"]
    kept = [number for number, token in enumerate(tokens) if token in pieces]
    projection = spec.decoder.projection
    spec.decoder.embeddings.weight = spec.decoder.embeddings.weight[kept]
    projection.weight = projection.weight[kept]
    if projection.has_bias():
        projection.bias = projection.bias[kept]
    spec._vocabularies["target"] = [[tokens[number] for number in kept]]
