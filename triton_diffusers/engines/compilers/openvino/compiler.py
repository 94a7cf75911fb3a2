"""OpenVINO compiler and its runnable graphs."""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from triton_diffusers.engines.compilers.openvino.lowering import (
    lower_to_supported_ops,
    mutates_inputs,
    split_chunked_linears,
)
from triton_diffusers.engines.compilers.openvino.passes import bind_weights, keep_attention_precise, specialise
from triton_diffusers.util.memory import evict_file_pages

if TYPE_CHECKING:
    from triton_diffusers.engines.compilers.protocol import CompiledGraph, Shapes
    from triton_diffusers.engines.graphs import Graph, Inputs


class FittedGraph:
    """Graph that is recompiled when the input shapes change.

    For rare calls that take longer than compilation. With static shapes, OpenVINO packs tensors more densely: Stable
    Diffusion's autoencoder needs little more than half of the working memory.
    """

    def __init__(self, names: Sequence[str], compile: Callable[[Shapes], CompiledGraph]) -> None:
        """Wrap ``compile``; ``names`` are the inputs' names in order."""
        self._names, self._compile = names, compile
        self._shapes: Shapes = {}
        self._graph: CompiledGraph | None = None

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shapes = dict(zip(self._names, (tuple(tensor.shape) for tensor in inputs), strict=True))
        if self._graph is None or shapes != self._shapes:
            self._graph = None  # free the old graph first, or both would be in memory
            self._graph, self._shapes = self._compile(shapes), shapes
        return self._graph(*inputs)

    def release(self) -> None:
        if self._graph is not None:
            self._graph.release()


logger = logging.getLogger(__name__)

_DEVICE = "CPU"
_FILE = "graph.xml"
# Quantized in int8 precision. Other networks are a small part of the work, and image quality suffers.
_QUANTIZED = (UNET,)
_WITH_SMALL_WEIGHTS = (TEXT_ENCODER,)  # int8 storage only: a quarter of the memory
# CPU flags with which OpenVINO fuses attention with quantized queries and keys.
_INT8_PRODUCTS = {"avx512_vnni", "amx_int8"}


class OpenVinoCompiler:
    """Compiler for the CPU."""

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
        with evict_file_pages(weights):
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
            specialise(fixed, shapes)
            with evict_file_pages(weights):
                return OpenVinoGraph(self._core.compile_model(fixed, _DEVICE, options), weights)

        return FittedGraph([port.get_any_name() for port in model.inputs], compiled)

    def bind(self, folder: Path, precision: str, weights: Mapping[str, torch.Tensor]) -> OpenVinoGraph:
        # Through a file: it is mapped and freed after compilation, whereas constants in memory would stay.
        with TemporaryDirectory(prefix="triton-diffusers-") as made:
            model = self._core.read_model(folder / _FILE)
            bind_weights(model, weights)
            openvino.save_model(model, Path(made) / _FILE, compress_to_fp16=precision != "float32")
            del model
            return self.load(Path(made), precision)

    def _options(self, precision: str) -> Mapping[str, Any]:
        low = precision != "float32" and self._has_bfloat16
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Pinned threads would share cores with PyTorch's even if others are idle.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
        }

    def _compiled(self, file: Path, options: Mapping[str, Any], shapes: Shapes | None) -> Any:
        model = self._core.read_model(file)
        if shapes is not None:
            specialise(model, shapes)
        if not self._has_int8_products:
            # Otherwise attention is not fused, and each outermost layer of Stable Diffusion 1.5 at 512×512 writes 1 GB
            # of products.
            keep_attention_precise(model)
        return self._core.compile_model(model, _DEVICE, options)

    def _cached(self, file: Path, options: Mapping[str, Any], shapes: Shapes | None, cache: GraphCache) -> Any:
        """Return the result of ``_compiled``, cached because rewriting the graph takes most of the time."""
        options = {**options, "CACHE_MODE": "OPTIMIZE_SIZE"}  # without the weights, which are in the graph's file
        made_with = f"{openvino.__version__} {self._processor} {options} {shapes}"
        if cached := cache.read(made_with):
            try:
                return self._core.import_model(
                    cached, _DEVICE, {**options, "WEIGHTS_PATH": str(file.with_suffix(".bin"))}
                )
            except RuntimeError as error:
                logger.warning("ignoring the graph cache %s: %s", cache.file, " ".join(str(error).split()))
        compiled = self._compiled(file, options, shapes)
        try:
            cache.write(made_with, compiled.export_model().getvalue())
        except RuntimeError as error:  # OpenVINO's export failed; the graph itself is usable
            logger.info("the graph cannot be cached: %s", " ".join(str(error).split()))
        return compiled

    @cached_property
    def _processor(self) -> str:
        """Processor name and flags, since virtual machines of equal names may have different instructions."""
        return " ".join([self._core.get_property(_DEVICE, "FULL_DEVICE_NAME"), *self._flags])

    @cached_property
    def _flags(self) -> Sequence[str]:
        """CPU flags reported by Linux."""
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
    """A compiled model with its inference request; inputs share PyTorch's memory."""

    def __init__(self, compiled: Any, weights: Path) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._outputs = range(len(compiled.outputs))
        self._weights: Path | None = weights  # None after the first call

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arrays = {index: tensor.contiguous().numpy() for index, tensor in enumerate(inputs)}
        # OpenVINO keeps reordered copies of weights: of convolutions since compilation, of others since the first call.
        # The file's pages are not needed afterwards.
        with evict_file_pages(self._weights) if self._weights else nullcontext():
            results = self._request.infer(arrays, share_inputs=True, share_outputs=True)
        self._weights = None
        # Cloned, since the next call reuses the output buffers.
        return tuple(torch.from_numpy(results[index]).clone() for index in self._outputs)

    def release(self) -> None:
        self._compiled.release_memory()


@cache
def _core() -> openvino.Core:
    """Return the process-wide ``ov.Core``; never release it.

    On destruction, OpenVINO frees the signal alternate stack of the thread that created it, even if others use OpenVINO
    since; the next signal would then kill the process.
    """
    return openvino.Core()


def _converted(program: torch.export.ExportedProgram) -> Any:
    # Like openvino.convert_model, but without telemetry.
    frontend = FrontEndManager().load_by_framework("pytorch")
    for extension in lora_extensions():
        frontend.add_extension(extension)
    frontend.add_extension(residual_extension())
    frontend.add_extension(norm_extension())
    frontend.add_extension(interleave_extension())
    module = program.module()
    if not mutates_inputs(module):
        split_chunked_linears(module)
        lower_to_supported_ops(module)
        decoder = TorchFXPythonDecoder(module, dynamic_shapes=False)
        try:
            return frontend.convert(frontend.load(decoder))
        except OpConversionFailure as error:
            logger.info("tracing again with PyTorch's decompositions: %s", str(error).strip().splitlines()[-1])
    with _quiet():
        decoder = TorchFXPythonDecoder.from_exported_program(program, dynamic_shapes=False)
    return frontend.convert(frontend.load(decoder))


def _fold(model: Any) -> None:
    """Fold constants, such as the quantization of weights."""
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence OpenVINO's reports of operations that this PyTorch does not decompose anyway."""
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
