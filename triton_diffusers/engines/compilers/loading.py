"""Graphs of an artifact while they are being loaded."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from triton_diffusers.controlnet import CONTROLNET
from triton_diffusers.engines.compilers import COMPILERS, CompiledGraph, Compiler, GraphCache


class LoadingGraphs:
    """Loads graphs side by side, in threads, from now on.

    A graph occupies one core for seconds, and neither Python nor PyTorch: other graphs, and imports, go on meanwhile.
    """

    def __init__(
        self, compiler: str, precision: str, folders: Mapping[str, Path], caches: Mapping[str, GraphCache]
    ) -> None:
        """``folders`` are where the compiler has written the graphs, by name; ``caches`` may be there for some.

        Raises ``KeyError`` or ``ImportError`` if there is no such compiler.
        """
        self.compiler: Compiler = COMPILERS[compiler]()
        self.precision = precision
        # The one graph that is loaded later, with the weights of each ControlNet.
        self.controlnet = folders.get(CONTROLNET)
        pool = ThreadPoolExecutor(thread_name_prefix="load-graph")
        self._loading = {
            name: pool.submit(self.compiler.load, folder, precision, caches.get(name))
            for name, folder in folders.items()
            if name != CONTROLNET
        }
        pool.shutdown(wait=False)

    def loaded(self) -> Mapping[str, CompiledGraph]:
        """All of them; waits until they are, and raises what the compiler raised about a file."""
        return {name: graph.result() for name, graph in self._loading.items()}
