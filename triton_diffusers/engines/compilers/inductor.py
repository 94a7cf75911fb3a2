"""Compiler using AOTInductor, for CPU and CUDA. It has not been run on CUDA yet."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from triton_diffusers.engines.compilers.bound_weights import BoundGraph, check_shapes, in_order, write_shapes
from triton_diffusers.engines.compilers.cache import GraphCache

if TYPE_CHECKING:
    from triton_diffusers.engines.compilers.protocol import Shapes
    from triton_diffusers.engines.graphs import Graph, Inputs

_FILE = "graph.pt2"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class InductorCompiler:
    """Compiler for the first CUDA device, or for the CPU without one; needs a C++ compiler."""

    name = "inductor"
    artifacts_are_code = True
    fixes_shapes = False

    def __init__(self) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def device(self) -> str:
        return self._device.type

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("bfloat16", "float32") if self._has_bfloat16 else ("float32", "bfloat16")

    def versions(self) -> Mapping[str, str]:
        return {"torch": torch.__version__}

    def calibrated(self, precision: str) -> tuple[str, ...]:
        return ()

    def machine(self) -> str:
        if self._device.type == "cuda":
            return "CUDA {}.{}".format(*torch.cuda.get_device_capability(self._device))
        return f"{platform.machine()} CPU {torch.backends.cpu.get_cpu_capability()}"

    def compile(self, graph: Graph, folder: Path, precision: str, calibration: Sequence[Inputs] = ()) -> None:
        program = graph.export(self._device, _DTYPES[precision])
        torch._inductor.aoti_compile_and_package(program, package_path=str(folder / _FILE))
        write_shapes(graph, folder)

    def load(
        self, folder: Path, precision: str, cache: GraphCache | None = None, shapes: Shapes | None = None
    ) -> InductorGraph:
        return InductorGraph(torch._inductor.aoti_load_package(str(folder / _FILE)), self._device)

    def load_fitted(self, folder: Path, precision: str) -> InductorGraph:
        return self.load(folder, precision)

    def bind(self, folder: Path, precision: str, weights: Mapping[str, torch.Tensor]) -> BoundGraph:
        # The code contains some of the examples' sizes, although they were declared dynamic.
        check_shapes(weights, folder)
        given = tuple(weight.to(self._device, _DTYPES[precision]) for weight in in_order(weights, folder))
        return BoundGraph(self.load(folder, precision), given)

    @property
    def _has_bfloat16(self) -> bool:
        if self._device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # some PyTorch lack it
        return any(bool(found) and name.endswith("bf16") for name, found in capabilities.items())


class InductorGraph:
    """A package compiled by AOTInductor."""

    def __init__(self, package: Any, device: torch.device) -> None:
        self._package, self._device = package, device

    @torch.inference_mode()
    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # The code assumes the memory order of the examples, unchecked.
        outputs = self._package(*(tensor.to(self._device).contiguous() for tensor in inputs))
        return tuple(output.cpu() for output in ([outputs] if isinstance(outputs, torch.Tensor) else outputs))

    def release(self) -> None:
        pass  # managed by PyTorch's allocator
