"""Compiler using Alibaba's Blade (``torch_blade``), installed separately. Untested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch_blade

from triton_diffusers.engines.compilers.bound_weights import BoundGraph, in_order, write_shapes
from triton_diffusers.engines.compilers.cache import GraphCache

if TYPE_CHECKING:
    from triton_diffusers.engines.compilers.protocol import Shapes
    from triton_diffusers.engines.graphs import Graph, Inputs

_FILE = "graph.pt"


class BladeCompiler:
    """Compiler for the first CUDA device."""

    name = "blade"
    device = "cuda"
    artifacts_are_code = True
    fixes_shapes = False
    precisions = ("float32",)

    def versions(self) -> Mapping[str, str]:
        return {"torch_blade": str(torch_blade.__version__), "torch": torch.__version__}

    def calibrated(self, precision: str) -> tuple[str, ...]:
        return ()

    def machine(self) -> str:
        return "CUDA {}.{}".format(*torch.cuda.get_device_capability())

    @torch.no_grad()
    def compile(self, graph: Graph, folder: Path, precision: str, calibration: Sequence[Inputs] = ()) -> None:
        module = graph.module.to("cuda").eval()
        example = tuple(tensor.cuda() for tensor in graph.example)
        torch.jit.save(torch_blade.optimize(module, allow_tracing=True, model_inputs=example), folder / _FILE)
        write_shapes(graph, folder)

    def load(
        self, folder: Path, precision: str, cache: GraphCache | None = None, shapes: Shapes | None = None
    ) -> BladeGraph:
        return BladeGraph(torch.jit.load(str(folder / _FILE), "cuda"))  # type: ignore[no-untyped-call]

    def load_fitted(self, folder: Path, precision: str) -> BladeGraph:
        return self.load(folder, precision)

    def bind(self, folder: Path, precision: str, weights: Mapping[str, torch.Tensor]) -> BoundGraph:
        given = tuple(weight.to("cuda", torch.float32) for weight in in_order(weights, folder))
        return BoundGraph(self.load(folder, precision), given)


class BladeGraph:
    """A script optimised by Blade."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        self._script = script

    @torch.inference_mode()
    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self._script(*(tensor.cuda() for tensor in inputs))
        return tuple(output.cpu() for output in ([outputs] if isinstance(outputs, torch.Tensor) else outputs))

    def release(self) -> None:
        pass  # managed by PyTorch's allocator
