"""Graphs of an artifact while they are being loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from triton_diffusers.adapters.controlnet import CONTROLNET
from triton_diffusers.engines.compilers import COMPILERS, CompiledGraph, Compiler, GraphCache, Shapes
from triton_diffusers.engines.graph_names import VAE_DECODER, VAE_ENCODER

# Their calls take seconds, and more memory than any others.
_FITTED = (VAE_ENCODER, VAE_DECODER)

logger = logging.getLogger(__name__)


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
        self._folders, self._caches = folders, caches
        self._pool = ThreadPoolExecutor(thread_name_prefix="load-graph")
        self._loading = {
            name: self._pool.submit(self.compiler.load, folder, precision, caches.get(name))
            if name not in _FITTED
            else self._pool.submit(self.compiler.load_fitted, folder, precision)
            for name, folder in folders.items()
            if name != CONTROLNET
        }

    def fix(self, name: str, fixed: str, shapes: Shapes) -> None:
        """Load the graph ``name`` once more, as ``fixed``, for inputs of these shapes alone; if the compiler can."""
        if not self.compiler.fixes_shapes or name not in self._folders:
            logger.info("%s: sizes cannot be fixed, its %s computes all", self.compiler.name, name)
            return
        cache = self._caches.get(name)
        if cache is not None:
            cache = replace(cache, file=cache.file.with_name(fixed))
        self._loading[fixed] = self._pool.submit(self.compiler.load, self._folders[name], self.precision, cache, shapes)

    def loaded(self) -> Mapping[str, CompiledGraph]:
        """All of them; waits until they are, and raises what the compiler raised about a file."""
        self._pool.shutdown()
        return {name: graph.result() for name, graph in self._loading.items()}
