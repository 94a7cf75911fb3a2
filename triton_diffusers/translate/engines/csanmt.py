"""ModelScope's CSANMT (``nlp_csanmt_translation_zh2en``) by ModelScope's own pipeline, on TensorFlow. Untested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelscope.pipelines import pipeline

from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.settings import Settings

_BETWEEN_TEXTS = "<SENT_SPLIT>"  # the pipeline's own mark for a batch


class CsanmtEngine:
    """Runs a CSANMT folder. Beams and the output's bound are those of its ``configuration.json``."""

    def __init__(self, translation: Any) -> None:
        """``translation`` is ModelScope's pipeline."""
        self._pipeline = translation

    @classmethod
    def load(cls, folder: Path, settings: Settings) -> CsanmtEngine:
        """Raises ``LoadError``."""
        try:
            return cls(pipeline(task="translation", model=str(folder)))
        except Exception as error:
            raise LoadError(f"{folder} cannot be loaded: {one_line(error)}") from error

    def translate(self, texts: Sequence[str]) -> list[str]:
        """One English text for each Chinese one."""
        answer = self._pipeline(input=_BETWEEN_TEXTS.join(texts))["translation"].split(_BETWEEN_TEXTS)
        return [text.strip() for text in answer]
