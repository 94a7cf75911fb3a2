"""Conditioning of a request's images: named inputs of the denoiser for each row and step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

Inputs = Mapping[str, torch.Tensor]
"""Inputs of a denoiser call besides latents and timesteps, by name, with one row each."""

STATES = "states"
"""Name of the hidden states (rows, tokens, width), which all families have."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """One text: hidden states as chunks of (1, tokens, width), and inputs of the whole text; compared by identity.

    ``padding`` is a chunk that pads this text; None for that of the conditioning.
    """

    chunks: tuple[torch.Tensor, ...]
    whole: Inputs = field(default_factory=dict)
    padding: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Inputs of the denoiser for each sampling step, and the prompts' weights in guidance.

    ``steps`` has one entry per step: the texts of the call's rows, negative first with guidance. ``weights`` are
    the weights of prompts joined by ``AND``. ``empty`` is the chunk of an empty prompt, which pads the shorter texts of
    a step; None if all texts have equal length. ``shared`` inputs (1, …) are equal in all rows and steps.
    """

    steps: tuple[tuple[EncodedText, ...], ...]
    empty: torch.Tensor | None = None
    weights: tuple[float, ...] = (1.0,)
    shared: Inputs = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of an image in a denoiser call: one per text with guidance, 1 without."""
        return len(self.steps[0])

    @property
    def composed(self) -> bool:
        """True if guidance combines several or weighted prompts, so that every step needs it."""
        return self.weights != (1.0,)

    def chunks(self, step: int) -> int:
        """Return the number of chunks per row at a step, counted from 0."""
        return max(len(text.chunks) for text in self.steps[step])

    def at(self, step: int, rows: int) -> Inputs:
        """Return the inputs of the last ``rows`` rows at a step, counted from 0."""
        texts, length = self.steps[step][-rows:], self.chunks(step)
        inputs = {STATES: torch.cat([self._padded(text, length) for text in texts])}
        inputs |= {name: torch.cat([text.whole[name] for text in texts]) for name in texts[0].whole}
        return inputs | {name: value.expand(rows, *value.shape[1:]) for name, value in self.shared.items()}

    def _padded(self, text: EncodedText, length: int) -> torch.Tensor:
        padding = self.empty if text.padding is None else text.padding
        missing = [padding] * (length - len(text.chunks)) if padding is not None else []
        return torch.cat([*text.chunks, *missing], dim=1)

    def changes(self, step: int) -> bool:
        """Return True if a step has other texts than the previous one."""
        return step > 0 and self.steps[step] != self.steps[step - 1]

    def covers(self, steps: int) -> bool:
        """Return True if the first ``steps`` steps use every text of the request."""
        return set(self.steps[:steps]) == set(self.steps)


def collate(rows: Sequence[Inputs]) -> Inputs:
    """Return the inputs of a call from those of its images, which have equal names and shapes."""
    return {name: torch.cat([inputs[name] for inputs in rows]) for name in rows[0]}


def select(inputs: Inputs, rows: slice | Sequence[int]) -> Inputs:
    """Return the inputs of some rows."""
    return {name: value[rows] for name, value in inputs.items()}
