"""Interface of graph compilers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from triton_diffusers.engines.compilers.cache import GraphCache

if TYPE_CHECKING:
    from triton_diffusers.engines.graphs import Graph, Inputs


Shapes = Mapping[str, tuple[int, ...]]
"""Input shapes of a graph, by name."""


class IncompatibleWeights(ValueError):
    """Weights have shapes that a compiled graph does not support, although its network would."""


class CompiledGraph(Protocol):
    """A runnable graph, used by one thread at a time."""

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs. Inputs and outputs are float32 on the CPU, whatever the internal precision."""

    def release(self) -> None:
        """Free the working memory kept for the next call, hundreds of megabytes.

        It takes a fifth of a second per gigabyte, and the next call takes as much longer.
        """


class Compiler(Protocol):
    """Compiler of graphs to files, and loader of these files."""

    @property
    def name(self) -> str:
        """Key in ``COMPILERS``."""

    @property
    def device(self) -> str:
        """Device type of its graphs: ``cpu`` or ``cuda``."""

    @property
    def artifacts_are_code(self) -> bool:
        """True if loading an artifact executes its code, so that its author must be trusted."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that suit this hardware (``float32``, ``bfloat16``, ``int8``), the best default first."""

    @property
    def fixes_shapes(self) -> bool:
        """True if ``load`` supports ``shapes`` and ``load_fitted`` differs from ``load``."""

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the libraries that files depend on, by name."""

    def machine(self) -> str:
        """Return the hardware that files are tied to: an instruction set, a GPU's architecture."""

    def calibrated(self, precision: str) -> tuple[str, ...]:
        """Return the names of graphs that ``compile`` needs calibration inputs for."""

    def compile(self, graph: Graph, folder: Path, precision: str, calibration: Sequence[Inputs] = ()) -> None:
        """Write a graph's files to an empty folder; takes minutes for large graphs.

        ``calibration`` holds inputs as the graph gets them in use.
        """

    def load(
        self, folder: Path, precision: str, cache: GraphCache | None = None, shapes: Shapes | None = None
    ) -> CompiledGraph:
        """Return the graph that ``compile`` wrote; it does not compute with PyTorch, so any thread may call it.

        ``cache`` may be used to speed up later loads. With ``shapes``, the graph accepts only these inputs with exactly
        these shapes and runs faster, without LoRA and residuals.
        """

    def load_fitted(self, folder: Path, precision: str) -> CompiledGraph:
        """Return the graph recompiled for each new input shape: about a second per shape, but less memory."""

    def bind(self, folder: Path, precision: str, weights: Mapping[str, torch.Tensor]) -> CompiledGraph:
        """Return a graph compiled without weights, bound to these weights by name; it takes the remaining inputs.

        It takes seconds, and converts weights with PyTorch; the originals may be freed afterwards.

        Raises:
            IncompatibleWeights: a weight has an unsupported shape.
        """
