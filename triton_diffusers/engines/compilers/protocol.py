"""What a compiler of graphs does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from triton_diffusers.engines.compilers.cache import GraphCache

if TYPE_CHECKING:
    from triton_diffusers.engines.graphs import Graph, Inputs


Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a graph's inputs, by name."""


class UnfitWeights(ValueError):
    """Weights of shapes that a compiled graph does not take, though its network could have them."""


class CompiledGraph(Protocol):
    """A graph that runs; used by one thread at a time."""

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The graph's outputs. Tensors come and go in float32 on the CPU, whatever the precision inside."""

    def release(self) -> None:
        """Give back what calls need beside weights, if the graph keeps it for the next one: hundreds of megabytes.

        Takes a fifth of a second for a gigabyte, and the next call as much longer.
        """


class Compiler(Protocol):
    """Makes files of graphs, and graphs that run of files."""

    @property
    def name(self) -> str:
        """What ``COMPILERS`` has it under."""

    @property
    def device(self) -> str:
        """The kind of device that its graphs run on here: ``cpu`` or ``cuda``."""

    @property
    def artifacts_are_code(self) -> bool:
        """Whether loading files runs programs in them, so that whoever wrote them must be trusted."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """``float32``, ``bfloat16``, ``int8``: those that this hardware is good at, the best default first."""

    @property
    def fixes_shapes(self) -> bool:
        """Whether ``load`` knows what to do with ``shapes``, and ``load_fitted`` does more than ``load``."""

    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that files depend on, by name."""

    def machine(self) -> str:
        """What files are tied to: an instruction set, a GPU's architecture."""

    def calibrated(self, precision: str) -> tuple[str, ...]:
        """The graphs that ``compile`` wants calibration inputs for."""

    def compile(self, graph: Graph, folder: Path, precision: str, calibration: Sequence[Inputs] = ()) -> None:
        """Write a graph's files into an empty folder; takes minutes for a large one.

        ``calibration`` are inputs as the graph gets them in use.
        """

    def load(
        self, folder: Path, precision: str, cache: GraphCache | None = None, shapes: Shapes | None = None
    ) -> CompiledGraph:
        """The graph that ``compile`` has written; computes nothing with PyTorch, so that any thread may call it.

        ``cache`` is for what makes this faster the next time; a compiler need not use it. With ``shapes`` the graph
        takes these inputs alone, of just these shapes, and is the faster for it: no LoRA, no residuals.
        """

    def load_fitted(self, folder: Path, precision: str) -> CompiledGraph:
        """As ``load``: a graph that takes a second for shapes that the call before did not have, and less memory."""

    def bind(self, folder: Path, precision: str, weights: Mapping[str, torch.Tensor]) -> CompiledGraph:
        """A graph that ``compile`` has written without weights, with these, by name: it takes the other inputs.

        Takes seconds, and computes with PyTorch in so far as it converts weights, which may then be dropped. Raises
        ``UnfitWeights``.
        """
