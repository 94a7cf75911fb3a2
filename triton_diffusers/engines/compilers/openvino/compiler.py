"""A graph that is compiled for the sizes that come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from triton_diffusers.engines.compilers.protocol import CompiledGraph, Shapes
import logging
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import openvino
import torch
from openvino.frontend import FrontEndManager, OpConversionFailure
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from openvino.passes import ConstantFolding, Manager

from triton_diffusers.adapters.lora import TEXT_ENCODER, UNET
from triton_diffusers.engines.compilers.cache import GraphCache
from triton_diffusers.engines.compilers.openvino.extensions import (
    interleave_extension,
    norm_extension,
    residual_extension,
)
from triton_diffusers.engines.compilers.openvino.lora import lora_extensions
from triton_diffusers.engines.compilers.openvino.lowering import changes_its_inputs, compute_apart, reword
from triton_diffusers.engines.compilers.openvino.passes import fix, keep_attention_precise, put_in
from triton_diffusers.util.memory import few_pages

if TYPE_CHECKING:
    from triton_diffusers.engines.compilers.protocol import Shapes
    from triton_diffusers.engines.graphs import Graph, Inputs


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


logger = logging.getLogger(__name__)

_DEVICE = "CPU"
_FILE = "graph.xml"
# In int8. The others are a small part of the work, and pictures suffer from what they lose.
_QUANTIZED = (UNET,)
_WITH_SMALL_WEIGHTS = (TEXT_ENCODER,)  # computed as they are, from weights in a quarter of the memory
# Instructions by which attention of quantized queries and keys is known to be computed in one piece.
_INT8_PRODUCTS = {"avx512_vnni", "amx_int8"}


class OpenVinoCompiler:
    """Compiles for the CPU."""

    name = "openvino"
    device = "cpu"
    artifacts_are_code = False
    fixes_shapes = True

    def __init__(self) -> None:
        self._core = _core()

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("bfloat16", "float32", "int8") if self._has_bfloat16 else ("float32", "int8")

    def versions(self) -> Mapping[str, str]:
        return {"openvino": openvino.__version__.partition("-")[0]}

    def calibrated(self, precision: str) -> tuple[str, ...]:
        return _QUANTIZED if precision == "int8" else ()

    def machine(self) -> str:
        return f"{platform.machine()} CPU"

    def compile(self, graph: Graph, folder: Path, precision: str, calibration: Sequence[Inputs] = ()) -> None:
        logger.info("%s: exporting", graph.name)
        program = graph.export()
        logger.info("%s: converting", graph.name)
        model = _converted(program)
        _fold(model)
        for port, graph_input in zip(model.inputs, (*graph.inputs, *graph.weights), strict=True):
            port.get_tensor().set_names({graph_input.name})
        if graph.name in self.calibrated(precision):
            from triton_diffusers.engines.compilers.openvino.passes import quantized

            logger.info("%s: quantizing with %d inputs", graph.name, len(calibration))
            model = quantized(model, calibration)
        elif precision == "int8" and graph.name in _WITH_SMALL_WEIGHTS:
            from triton_diffusers.engines.compilers.openvino.passes import with_small_weights

            model = with_small_weights(model)
        openvino.save_model(model, folder / _FILE, compress_to_fp16=precision != "float32")

    def load(
        self, folder: Path, precision: str, cache: GraphCache | None = None, shapes: Shapes | None = None
    ) -> OpenVinoGraph:
        file, options = folder / _FILE, self._options(precision)
        weights = file.with_suffix(".bin")
        with few_pages(weights):
            if cache is None:
                compiled = self._compiled(file, options, shapes)
            else:
                compiled = self._cached(file, options, shapes, cache)
        return OpenVinoGraph(compiled, weights)

    def load_fitted(self, folder: Path, precision: str) -> FittedGraph:
        file, options = folder / _FILE, self._options(precision)
        weights, model = file.with_suffix(".bin"), self._core.read_model(file)

        def compiled(shapes: Shapes) -> OpenVinoGraph:
            fixed = model.clone()
            fix(fixed, shapes)
            with few_pages(weights):
                return OpenVinoGraph(self._core.compile_model(fixed, _DEVICE, options), weights)

        return FittedGraph([port.get_any_name() for port in model.inputs], compiled)

    def bind(self, folder: Path, precision: str, weights: Mapping[str, torch.Tensor]) -> OpenVinoGraph:
        # By way of a file: it is mapped, and given back once it is compiled, while constants in memory would stay.
        with TemporaryDirectory(prefix="triton-diffusers-") as made:
            model = self._core.read_model(folder / _FILE)
            put_in(model, weights)
            openvino.save_model(model, Path(made) / _FILE, compress_to_fp16=precision != "float32")
            del model
            return self.load(Path(made), precision)

    def _options(self, precision: str) -> Mapping[str, Any]:
        low = precision != "float32" and self._has_bfloat16
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Pinned threads would share their cores with PyTorch's, whatever else is free.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
        }

    def _compiled(self, file: Path, options: Mapping[str, Any], shapes: Shapes | None) -> Any:
        model = self._core.read_model(file)
        if shapes is not None:
            fix(model, shapes)
        if not self._has_int8_products:
            # It would take attention apart, and write the products of all queries and keys to memory: 1 GB for each of
            # the outermost layers of Stable Diffusion 1.5 at 512×512.
            keep_attention_precise(model)
        return self._core.compile_model(model, _DEVICE, options)

    def _cached(self, file: Path, options: Mapping[str, Any], shapes: Shapes | None, cache: GraphCache) -> Any:
        """What ``_compiled`` would give. Most of its time goes into rewriting the graph, and the result can be kept."""
        options = {**options, "CACHE_MODE": "OPTIMIZE_SIZE"}  # without those weights that are in the graph's file
        made_with = f"{openvino.__version__} {self._processor} {options} {shapes}"
        if kept := cache.read(made_with):
            try:
                return self._core.import_model(
                    kept, _DEVICE, {**options, "WEIGHTS_PATH": str(file.with_suffix(".bin"))}
                )
            except RuntimeError as error:
                logger.warning("%s is of no use: %s", cache.file, " ".join(str(error).split()))
        compiled = self._compiled(file, options, shapes)
        try:
            cache.write(made_with, compiled.export_model().getvalue())
        except RuntimeError as error:  # OpenVINO's; the graph is there all the same
            logger.info("nothing is kept for a faster start: %s", " ".join(str(error).split()))
        return compiled

    @cached_property
    def _processor(self) -> str:
        """What the rewriting depends on: virtual machines of the same name may have other instructions."""
        return " ".join([self._core.get_property(_DEVICE, "FULL_DEVICE_NAME"), *self._flags])

    @cached_property
    def _flags(self) -> Sequence[str]:
        """The processor's instructions, as Linux has it."""
        info = Path("/proc/cpuinfo")
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
        return next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])

    @property
    def _has_int8_products(self) -> bool:
        return not _INT8_PRODUCTS.isdisjoint(self._flags)

    @property
    def _has_bfloat16(self) -> bool:
        return "BF16" in self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


class OpenVinoGraph:
    """A compiled model and the one request that runs it. Inputs are read where PyTorch has them."""

    def __init__(self, compiled: Any, weights: Path) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._outputs = range(len(compiled.outputs))
        self._weights: Path | None = weights  # until they have been read

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arrays = {index: tensor.contiguous().numpy() for index, tensor in enumerate(inputs)}
        # OpenVINO keeps weights of its own, in the order that the processor likes: convolutions' from its compilation
        # on, others' from the first call. Those of the file are not needed again.
        with few_pages(self._weights) if self._weights else nullcontext():
            results = self._request.infer(arrays, share_inputs=True, share_outputs=True)
        self._weights = None
        # The next call writes where this one did.
        return tuple(torch.from_numpy(results[index]).clone() for index in self._outputs)

    def release(self) -> None:
        self._compiled.release_memory()


@cache
def _core() -> openvino.Core:
    """The one of this process, for good.

    With its first use it gives the thread that uses it a stack of its own for signals, and takes it away with its end,
    also where another one or another thread comes in between: the next signal would then end the process.
    """
    return openvino.Core()


def _converted(program: torch.export.ExportedProgram) -> Any:
    # openvino.convert_model does the same, and reports to its makers that it did.
    frontend = FrontEndManager().load_by_framework("pytorch")
    for extension in lora_extensions():
        frontend.add_extension(extension)
    frontend.add_extension(residual_extension())
    frontend.add_extension(norm_extension())
    frontend.add_extension(interleave_extension())
    module = program.module()
    if not changes_its_inputs(module):
        compute_apart(module)
        reword(module)
        decoder = TorchFXPythonDecoder(module, dynamic_shapes=False)
        try:
            return frontend.convert(frontend.load(decoder))
        except OpConversionFailure as error:
            logger.info("traced anew, with PyTorch's own decompositions: %s", str(error).strip().splitlines()[-1])
    with _quiet():
        decoder = TorchFXPythonDecoder.from_exported_program(program, dynamic_shapes=False)
    return frontend.convert(frontend.load(decoder))


def _fold(model: Any) -> None:
    """Compute what depends on weights alone: the quantization of a weight is that of a constant."""
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what OpenVINO has to say, trace and all, of operations that this PyTorch does not decompose anyway."""
    root = logging.getLogger()

    def is_of_use(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Operation %s not found in decomp table")

    root.addFilter(is_of_use)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance\\(treespec", FutureWarning)
            yield
    finally:
        root.removeFilter(is_of_use)
