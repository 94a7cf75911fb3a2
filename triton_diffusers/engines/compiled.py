"""Compiled engine: graphs of a compiler, with PyTorch for everything they do not support."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from triton_diffusers.adapters.controlnet import ControlNetWeights
from triton_diffusers.adapters.lora import TEXT_ENCODER, UNET, LoraSet, target_modules
from triton_diffusers.artifacts import fingerprint
from triton_diffusers.checkpoints.load import Components, LoadError, device_and_dtype, load_skeleton, load_weights
from triton_diffusers.engines.base import CheckpointEngine
from triton_diffusers.engines.batch import Batch
from triton_diffusers.engines.compilers import CompiledGraph, IncompatibleWeights, Shapes
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.engines.eager import LORA_BATCH_BYTES, EagerControlNet, EagerEngine
from triton_diffusers.engines.graph_names import UNET_SHALLOW, VAE_DECODER, VAE_ENCODER
from triton_diffusers.engines.graphs import lora_layouts, no_residuals, uses_mask
from triton_diffusers.engines.lora_packer import LoraPacker
from triton_diffusers.engines.protocol import ControlNet
from triton_diffusers.errors import EngineFailure
from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.families.denoiser import Residuals
from triton_diffusers.families.guidance import GUIDANCE
from triton_diffusers.families.unet import ShallowUNet
from triton_diffusers.prompts import Tokens
from triton_diffusers.settings import Settings
from triton_diffusers.util.cache import LruCache
from triton_diffusers.util.memory import on_disk, release_memory

logger = logging.getLogger(__name__)

_CHUNK_TOKENS = 77


class CompiledControlNet:
    """A ControlNet as a compiled graph with bound weights."""

    def __init__(self, weights: ControlNetWeights, graph: CompiledGraph, precision: str) -> None:
        self._graph = graph
        self._is_bgr = weights.config["controlnet_conditioning_channel_order"] == "bgr"
        itemsize = 4 if precision == "float32" else 2
        self.nbytes = sum(tensor.numel() for tensor in weights.tensors.values()) * itemsize

    @torch.inference_mode()
    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, images: torch.Tensor
    ) -> Residuals:
        images = images.flip(1) if self._is_bgr else images
        return self._graph(latents, timesteps.float(), inputs[STATES].float().cpu(), images)


def fixed_name(height: int, width: int) -> str:
    """Return the name of the graph for latents of this size."""
    return f"{UNET}-{width}x{height}"


def fixed_rows(config: Any) -> int:
    """Return the rows of one image: two with guidance, or one if guidance is distilled into the UNet."""
    return 2 if config.time_cond_proj_dim is None else 1


def fixed_shapes(config: Any, height: int, width: int) -> Shapes:
    """Return the input shapes of a UNet graph for latents of this size."""
    rows = fixed_rows(config)
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (rows, config.in_channels, height, width),
        "timesteps": (rows,),
        "states": (rows, _CHUNK_TOKENS, config.cross_attention_dim),
    }
    if config.time_cond_proj_dim is not None:
        shapes[GUIDANCE] = (rows, config.time_cond_proj_dim)
    return shapes


def fixed_takes(rows: int, states: torch.Tensor) -> bool:
    """Return True if ``states`` belong to whole images with prompts of one chunk."""
    return len(states) % rows == 0 and states.shape[1] == _CHUNK_TOKENS


def predict_fixed(graph: CompiledGraph, rows: int, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and deep features, image by image: larger batches are not faster on a busy CPU."""
    images = zip(*(torch.split(tensor, rows) for tensor in inputs), strict=True)
    predictions, deep = zip(*(graph(*image) for image in images), strict=True)
    return torch.cat(predictions), torch.cat(deep)


class CompiledEngine(CheckpointEngine):
    """Engine of compiled graphs, with PyTorch for missing graphs and unsupported LoRAs.

    Of ``components``, only the token embeddings and the safety checker need weights. ``make_eager`` loads the others on
    first use. ``make_controlnet`` loads ControlNets.
    """

    optimized = True
    device = torch.device("cpu")  # of the graphs' outputs

    def __init__(
        self,
        components: Components,
        graphs: Mapping[str, CompiledGraph],
        make_eager: Callable[[], EagerEngine],
        make_controlnet: Callable[[ControlNetWeights], ControlNet],
    ) -> None:
        super().__init__(components)
        self._graphs, self._make_eager, self._make_controlnet = graphs, make_eager, make_controlnet
        self._no_residuals = no_residuals(components.denoiser)
        self._fixed_rows = fixed_rows(components.denoiser.config)
        packed: LruCache[Any, Any] = LruCache(LORA_BATCH_BYTES)
        self._unet_loras = LoraPacker(UNET, lora_layouts(UNET, components.denoiser), packed)
        shallow = ShallowUNet(components.denoiser)
        part = {path for path, _ in target_modules(UNET, shallow)}
        self._shallow_loras = LoraPacker(UNET, lora_layouts(UNET, shallow), packed, part)
        self._text_loras = LoraPacker(TEXT_ENCODER, lora_layouts(TEXT_ENCODER, components.text_encoder), packed)

    @cached_property
    def _eager(self) -> EagerEngine:
        logger.info("loading the model's weights for a request that the compiled engine does not support")
        try:
            return self._make_eager()
        except Exception as error:  # third-party code may raise anything; the next request retries
            logger.exception("the weights cannot be loaded")  # logged only: the message may disclose server paths
            raise EngineFailure(
                "the compiled engine does not support this request, and the model's weights cannot be loaded"
            ) from error

    @torch.inference_mode()
    def encode_prompts(self, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> Inputs:
        graph, packed = self._graphs.get(TEXT_ENCODER), self._text_loras.pack([loras] * len(chunks))
        if graph is None or packed is None:
            encoded = self._eager.encode_prompts(chunks, clip_skip, loras)
            return {name: value.float().cpu() for name, value in encoded.items()}
        encoder = self._components.text_encoder
        ids = torch.tensor([chunk.ids for chunk in chunks])
        mask = [torch.tensor([chunk.attention_mask for chunk in chunks]).float()] if uses_mask(encoder.config) else []
        (states,) = graph(encoder.get_input_embeddings()(ids).float(), *packed, *mask)
        return {STATES: states[-clip_skip]}

    def computes_apart(self, loras: LoraSet | None) -> bool:
        return UNET in self._graphs and not self._unet_loras.takes(loras)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        graph = self._graphs.get(UNET if batch.deep is None else UNET_SHALLOW)
        packer = self._unet_loras if batch.deep is None else self._shallow_loras
        packed = packer.pack(batch.loras)
        if graph is None:
            return self._predict_eagerly(batch)
        if packed is not None:
            return self._predict_compiled(graph, batch, packed)
        wanted = list(batch.loras or ())
        parts = _parts(packer, wanted)
        if len(parts) == 1:  # all rows have unsupported LoRAs
            return self._predict_eagerly(batch)
        made = [self.predict(batch.rows(rows)) for rows in parts]
        order = torch.tensor([row for rows in parts for row in rows]).argsort()
        predictions, features = (torch.cat(found)[order] for found in zip(*made, strict=True))
        return predictions, features

    def _predict_compiled(
        self, graph: CompiledGraph, batch: Batch, packed: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        guidance = (batch.inputs[GUIDANCE],) if GUIDANCE in batch.inputs else ()
        inputs = (batch.latents, batch.timesteps.float(), batch.states.float().cpu(), *guidance)
        if batch.deep is not None:
            return graph(*inputs, batch.deep, *packed)[0], batch.deep
        fixed = self._graphs.get(fixed_name(*batch.latents.shape[2:]))
        is_plain = batch.residuals is None and not any(tensor.numel() for tensor in packed)
        if fixed is not None and is_plain and fixed_takes(self._fixed_rows, batch.states):
            return predict_fixed(fixed, self._fixed_rows, inputs)
        prediction, features = graph(*inputs, *packed, *(batch.residuals or self._no_residuals))
        return prediction, features

    def _predict_eagerly(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        prediction, features = self._eager.predict(batch)
        return prediction.cpu(), features.cpu()

    def make_controlnet(self, weights: ControlNetWeights) -> ControlNet:
        return self._make_controlnet(weights)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        if precise or VAE_ENCODER not in self._graphs:
            return self._eager.encode(pixels, precise=precise).cpu()
        return self._alone(VAE_ENCODER, torch.from_numpy(pixels).unsqueeze(0))

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
        if precise or VAE_DECODER not in self._graphs:
            return self._eager.decode(latents, precise=precise)
        image: np.ndarray[Any, Any] = self._alone(VAE_DECODER, latents.unsqueeze(0))[0].numpy()
        return image

    def _alone(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """Call a rarely used graph for whole images; the working memory of the other graphs is freed first."""
        self._release(*self._graphs)
        try:
            (output,) = self._graphs[name](whole)
            return output
        finally:
            self._release(name)

    def _release(self, *names: str) -> None:
        for name in names:
            self._graphs[name].release()
        release_memory()  # compilers free many small blocks, which the C library keeps


def _parts(packer: LoraPacker, loras: Sequence[LoraSet | None]) -> list[list[int]]:
    """Split a call's rows so that only those with unsupported LoRAs leave the graph."""
    taken = [packer.takes(row) for row in loras]
    if all(taken):  # together they exceed the size limit
        kinds = list(dict.fromkeys(loras))
        return [[row for row, kind in enumerate(loras) if kind == wanted] for wanted in kinds]
    parts = [[row for row, found in enumerate(taken) if found is wanted] for wanted in (True, False)]
    return [rows for rows in parts if rows]


def load_compiled(settings: Settings, graphs: LoadingGraphs) -> CompiledEngine:
    """Return the engine for a model directory and the graphs compiled from it.

    Any thread may call it: it uses PyTorch only to read and convert the embeddings and the safety checker.

    Raises:
        LoadError: the model directory is invalid.
        ArtifactError: a file of the model cannot be read.
        Exception: the compiler could not load a graph.
    """
    # First, so that an unreadable model fails at once and not after seconds of compilation.
    original = fingerprint(settings.model_dir, settings.vae)
    skeleton = load_skeleton(settings, torch.float32 if graphs.precision == "float32" else torch.bfloat16)
    words = skeleton.text_encoder.get_input_embeddings()
    # On disk, since a prompt reads only one row per token.
    words.weight = torch.nn.Parameter(on_disk(words.weight, settings.cache_dir))
    sides = [[math.ceil(side / skeleton.family.latents.pixels) for side in size] for size in settings.fixed_sizes]
    for width, height in dict.fromkeys(map(tuple, sides)):  # several sizes may have equal latents
        graphs.specialise(UNET, fixed_name(height, width), fixed_shapes(skeleton.denoiser.config, height, width))

    def make_controlnet(weights: ControlNetWeights) -> ControlNet:
        if graphs.controlnet is None:
            return EagerControlNet(weights, *device_and_dtype(settings))
        try:
            graph = graphs.compiler.bind(graphs.controlnet, graphs.precision, weights.tensors)
        except IncompatibleWeights as error:
            logger.info("running a ControlNet in PyTorch: %s", error)
            return EagerControlNet(weights, *device_and_dtype(settings))
        return CompiledControlNet(weights, graph, graphs.precision)

    def make_eager() -> EagerEngine:
        eager = EagerEngine(load_weights(settings, skeleton))
        if fingerprint(settings.model_dir, settings.vae) != original:
            raise LoadError(f"the weights in {settings.model_dir} have changed since the graphs were compiled")
        return eager

    engine = CompiledEngine(skeleton, graphs.loaded(), make_eager, make_controlnet)
    release_memory()  # temporary memory of loading
    return engine
