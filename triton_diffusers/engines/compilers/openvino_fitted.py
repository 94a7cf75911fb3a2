"""A graph that is compiled for the sizes that come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from triton_diffusers.engines.compilers.protocol import CompiledGraph, Shapes


class FittedGraph:
    """Compiles anew where a call's shapes are not those of the one before it.

    For a graph whose calls take longer than that. OpenVINO packs tensors of which it knows the sizes more densely: the
    autoencoder of Stable Diffusion needs little more than half of the memory beside its weights.
    """

    def __init__(self, names: Sequence[str], compile: Callable[[Shapes], CompiledGraph]) -> None:
        """``names`` are those of all inputs, in order."""
        self._names, self._compile = names, compile
        self._shapes: Shapes = {}
        self._graph: CompiledGraph | None = None

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shapes = dict(zip(self._names, (tuple(tensor.shape) for tensor in inputs), strict=True))
        if self._graph is None or shapes != self._shapes:
            self._graph = None  # first: the weights of two would be in memory
            self._graph, self._shapes = self._compile(shapes), shapes
        return self._graph(*inputs)

    def release(self) -> None:
        if self._graph is not None:
            self._graph.release()
