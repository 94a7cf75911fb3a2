"""PyTorch's own compiler, ahead of time. One code for CPU and CUDA; it has not been run on CUDA yet."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from triton_diffusers.engines.compilers.cache import GraphCache
from triton_diffusers.engines.compilers.with_weights import WithWeights, check_shapes, in_order, write_shapes

if TYPE_CHECKING:
    from triton_diffusers.engines.compilers.protocol import Shapes
    from triton_diffusers.engines.graphs import Graph, Inputs

_FILE = "graph.pt2"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class InductorCompiler:
    """Compiles for the first CUDA device, or for the CPU if there is none. Needs a C++ compiler."""

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

    def bind(self, folder: Path, precision: str, weights: Mapping[str, torch.Tensor]) -> WithWeights:
        check_shapes(weights, folder)  # the code has some of the examples' in it, though it was told that they are free
        given = tuple(weight.to(self._device, _DTYPES[precision]) for weight in in_order(weights, folder))
        return WithWeights(self.load(folder, precision), given)

    @property
    def _has_bfloat16(self) -> bool:
        if self._device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not every PyTorch has it
        return any(bool(found) and name.endswith("bf16") for name, found in capabilities.items())


class InductorGraph:
    """A package that AOTInductor has made."""

    def __init__(self, package: Any, device: torch.device) -> None:
        self._package, self._device = package, device

    @torch.inference_mode()
    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # The code counts on the order in memory of the examples, and does not look.
        outputs = self._package(*(tensor.to(self._device).contiguous() for tensor in inputs))
        return tuple(output.cpu() for output in ([outputs] if isinstance(outputs, torch.Tensor) else outputs))

    def release(self) -> None:
        pass  # PyTorch's allocator has it
