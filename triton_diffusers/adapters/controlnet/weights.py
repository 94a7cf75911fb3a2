"""The one form that every file of a ControlNet becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from triton_diffusers.util.files import FileIdentity

Identity = tuple[FileIdentity, ...]
"""Path, size and time of change of a ControlNet's files: tells it from every other, and from its earlier versions."""


@dataclass(frozen=True, slots=True, eq=False)
class ControlNetWeights:
    """A ControlNet that fits the base model: what ``diffusers.ControlNetModel`` is made of.

    ``config`` is whole. ``tensors`` are all that the network has, by its own names, in the precision of the file; their
    memory may be the file's, so they are to be copied by whoever keeps them.
    """

    identity: Identity
    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Memory of all tensors, as they are in the file."""
        return sum(tensor.nbytes for tensor in self.tensors.values())
