"""Text embeddings of a request's images for each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """Hidden states of one text, as chunks of (1, tokens, width); compared by identity."""

    chunks: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Hidden states of the prompts for each sampling step, and their weights in guidance.

    ``steps`` has one entry per step: the texts of the UNet call's rows, negative first with guidance. ``weights`` are
    the weights of prompts joined by ``AND``. ``empty`` is the chunk of an empty prompt, which pads the shorter texts of
    a step; None if all texts have equal length.
    """

    steps: tuple[tuple[EncodedText, ...], ...]
    empty: torch.Tensor | None = None
    weights: tuple[float, ...] = (1.0,)

    @property
    def rows(self) -> int:
        """Rows of an image in a UNet call: one per text with guidance, 1 without."""
        return len(self.steps[0])

    @property
    def composed(self) -> bool:
        """True if guidance combines several or weighted prompts, so that every step needs it."""
        return self.weights != (1.0,)

    def chunks(self, step: int) -> int:
        """Return the number of chunks per row at a step, counted from 0."""
        return max(len(text.chunks) for text in self.steps[step])

    def at(self, step: int, rows: int) -> torch.Tensor:
        """Return the hidden states (rows, tokens, width) of the last ``rows`` rows at a step, counted from 0."""
        length = self.chunks(step)
        return torch.cat([self._padded(text, length) for text in self.steps[step][-rows:]])

    def _padded(self, text: EncodedText, length: int) -> torch.Tensor:
        padding = [self.empty] * (length - len(text.chunks)) if self.empty is not None else []
        return torch.cat([*text.chunks, *padding], dim=1)

    def changes(self, step: int) -> bool:
        """Return True if a step has other texts than the previous one."""
        return step > 0 and self.steps[step] != self.steps[step - 1]

    def covers(self, steps: int) -> bool:
        """Return True if the first ``steps`` steps use every text of the request."""
        return set(self.steps[:steps]) == set(self.steps)

    def guide(self, predictions: Sequence[torch.Tensor], scale: float) -> torch.Tensor:
        """Return the guided prediction (1, channels, h, w) from the predictions of an image's rows."""
        if len(predictions) == 1:
            return predictions[0]
        unconditional, *conditional = predictions
        guided = unconditional
        for weight, prediction in zip(self.weights, conditional, strict=True):
            guided = guided + weight * scale * (prediction - unconditional)
        return guided
