"""Compilers of graphs. ``COMPILERS`` finds them by name; each class implements ``Compiler``."""

from __future__ import annotations

from collections.abc import Mapping

from triton_diffusers.engines.compilers.cache import GraphCache, caches_of
from triton_diffusers.engines.compilers.protocol import CompiledGraph, Compiler, IncompatibleWeights, Shapes
from triton_diffusers.util.lazy import Registry

__all__ = [
    "COMPILERS",
    "PRECISIONS",
    "CompiledGraph",
    "Compiler",
    "GraphCache",
    "IncompatibleWeights",
    "Shapes",
    "caches_of",
]

COMPILERS = Registry(
    "compiled engine",
    {
        "openvino": "triton_diffusers.engines.compilers.openvino.compiler:OpenVinoCompiler",
        "inductor": "triton_diffusers.engines.compilers.inductor:InductorCompiler",
        "blade": "triton_diffusers.engines.compilers.blade:BladeCompiler",
    },
    extras={"openvino": "openvino"},
)

# Precisions supported on any hardware, known without importing a compiler.
PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "openvino": ("float32", "bfloat16", "int8"),
    "inductor": ("float32", "bfloat16"),
    "blade": ("float32",),
}
