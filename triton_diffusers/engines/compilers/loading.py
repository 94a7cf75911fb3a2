"""Concurrent loading of an artifact's graphs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from triton_diffusers.adapters.controlnet import CONTROLNET
from triton_diffusers.engines.compilers import COMPILERS, CompiledGraph, Compiler, GraphCache, Shapes
from triton_diffusers.engines.graph_names import VAE_DECODER, VAE_ENCODER

# Their calls take seconds and the most memory.
_FITTED = (VAE_ENCODER, VAE_DECODER)

logger = logging.getLogger(__name__)


class LoadingGraphs:
    """Graphs of an artifact, loading in parallel threads from construction on.

    Loading a graph uses one core for seconds, without Python or PyTorch, so that other graphs and imports proceed
    meanwhile.
    """

    def __init__(
        self, compiler: str, precision: str, folders: Mapping[str, Path], caches: Mapping[str, GraphCache]
    ) -> None:
        """Start loading the graphs in ``folders``, by name; ``caches`` may lack some.

        Raises:
            KeyError: the compiler does not exist.
            ImportError: the compiler is not installed.
        """
        self.compiler: Compiler = COMPILERS[compiler]()
        self.precision = precision
        # Loaded later, with the weights of each ControlNet.
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

    def specialise(self, name: str, fixed: str, shapes: Shapes) -> None:
        """Load the graph ``name`` a second time as ``fixed``, for inputs of exactly these shapes, if supported."""
        if not self.compiler.fixes_shapes or name not in self._folders:
            logger.info("%s: fixed sizes are unsupported for %s", self.compiler.name, name)
            return
        cache = self._caches.get(name)
        if cache is not None:
            cache = replace(cache, file=cache.file.with_name(fixed))
        self._loading[fixed] = self._pool.submit(self.compiler.load, self._folders[name], self.precision, cache, shapes)

    def loaded(self) -> Mapping[str, CompiledGraph]:
        """Wait for all graphs and return them; re-raises the compiler's errors."""
        self._pool.shutdown()
        return {name: graph.result() for name, graph in self._loading.items()}
