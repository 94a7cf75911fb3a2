"""Marian models by CTranslate2, which needs neither PyTorch nor transformers once a model is converted."""

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
from triton_diffusers.translate.engines.protocol import min_score, most_output_tokens
from triton_diffusers.translate.folder import english_pieces, marian_files, marian_weights

# Weights are read anew for each token: more threads than that find no more memory bandwidth.
_MOST_THREADS = 4
_END = "</s>"
_UNKNOWN = "<unk>"


class CTranslate2Engine:
    """Runs a model that was converted from a Marian folder."""

    def __init__(self, model: Path, folder: Path, *, beams: int) -> None:
        """``model`` is what ``convert`` made of the Marian ``folder``. It runs in the precision that it was made in."""
        self._source, self._target = (
            sentencepiece.SentencePieceProcessor(str(folder / f"{side}.spm")) for side in ("source", "target")
        )
        # By itself it takes four threads, and on fewer cores those wait for each other most of the time.
        threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        self._translator = ctranslate2.Translator(str(model), device="cpu", intra_threads=threads)
        self._beams = beams
        self._min_score = min_score(folder)

    @classmethod
    def load(cls, folder: Path, settings: Settings) -> CTranslate2Engine:
        """Run a Marian folder, its matrices in int8; it is converted once. Raises ``LoadError``."""
        weights = marian_weights(folder)
        model = converted(
            weights, settings.cache_dir, lambda _, target: convert(folder, target), beside=marian_files(folder)
        )
        try:
            return cls(model, folder, beams=settings.translate_beams)
        except (RuntimeError, OSError, ValueError) as error:
            raise LoadError(f"{folder} cannot be loaded: {one_line(error)}") from error

    def translate(self, texts: Sequence[str]) -> list[str | None]:
        """Return one English text for each Chinese one, or None for one that the model does not know."""
        tokens = [[*self._source.encode(text, out_type=str), _END] for text in texts]
        results = self._translator.translate_batch(
            tokens,
            beam_size=self._beams,
            max_decoding_length=most_output_tokens(max(map(len, tokens))),
            return_scores=self._min_score is not None,
        )
        return [
            self._text(result.hypotheses[0][: most_output_tokens(len(source))]) if self._knows(source, result) else None
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
    """Write the Marian ``folder`` as CTranslate2 wants it into the existing folder ``target``. Raises ``LoadError``.

    What the decoder can say is cut to the English pieces. Each token is chosen among all that could be said: half as
    many are half of that work, which is a good part of the whole.
    """
    from ctranslate2.converters import TransformersConverter

    try:
        spec = TransformersConverter(str(folder))._load()  # what its convert() does, and between that, the cut
        _keep_outputs(spec, english_pieces(folder))
        spec.validate()
        spec.optimize(quantization=quantization)
        spec.save(str(target))
    except Exception as error:
        raise LoadError(f"{folder} cannot be converted for ctranslate2: {one_line(error)}") from error


def _keep_outputs(spec: Any, pieces: frozenset[str]) -> None:
    """Take what is not in ``pieces`` out of what the decoder of CTranslate2's ``spec`` can say."""
    (tokens,) = spec._vocabularies["target"]
    kept = [number for number, token in enumerate(tokens) if token in pieces]
    projection = spec.decoder.projection
    spec.decoder.embeddings.weight = spec.decoder.embeddings.weight[kept]
    projection.weight = projection.weight[kept]
    if projection.has_bias():
        projection.bias = projection.bias[kept]
    spec._vocabularies["target"] = [[tokens[number] for number in kept]]
