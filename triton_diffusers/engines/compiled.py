"""A ControlNet as a compiled graph."""

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
from triton_diffusers.engines.compilers import CompiledGraph, Shapes, UnfitWeights
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.engines.eager import LORA_BATCH_BYTES, EagerControlNet, EagerEngine
from triton_diffusers.engines.graph_names import GUIDANCE, UNET_SHALLOW, VAE_DECODER, VAE_ENCODER
from triton_diffusers.engines.graphs import lora_layouts, no_residuals, uses_mask
from triton_diffusers.engines.lora_packer import LoraPacker
from triton_diffusers.engines.protocol import ControlNet, Residuals
from triton_diffusers.engines.shallow import ShallowUNet
from triton_diffusers.errors import EngineFailure
from triton_diffusers.prompts import Tokens
from triton_diffusers.settings import Settings
from triton_diffusers.util.cache import LruCache
from triton_diffusers.util.memory import give_back, on_disk


class CompiledControlNet:
    """Runs ``graph``, which has the ``weights``, in a ``precision`` of its own."""

    def __init__(self, weights: ControlNetWeights, graph: CompiledGraph, precision: str) -> None:
        self._graph = graph
        self._is_bgr = weights.config["controlnet_conditioning_channel_order"] == "bgr"
        itemsize = 4 if precision == "float32" else 2
        self.nbytes = sum(tensor.numel() for tensor in weights.tensors.values()) * itemsize

    @torch.inference_mode()
    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor, pictures: torch.Tensor
    ) -> Residuals:
        pictures = pictures.flip(1) if self._is_bgr else pictures
        return self._graph(latents, timesteps.float(), states.float().cpu(), pictures)


_TOKENS = 77  # one chunk of a prompt


def fixed_name(height: int, width: int) -> str:
    """What the graph for latents of these sides is called."""
    return f"{UNET}-{width}x{height}"


def fixed_rows(config: Any) -> int:
    """Return the rows of one image: without the prompt and with it, or one if guidance is distilled into the UNet."""
    return 2 if config.time_cond_proj_dim is None else 1


def fixed_shapes(config: Any, height: int, width: int) -> Shapes:
    """The inputs of the graph for latents of these sides, of the UNet that ``config`` describes."""
    rows = fixed_rows(config)
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (rows, config.in_channels, height, width),
        "timesteps": (rows,),
        "states": (rows, _TOKENS, config.cross_attention_dim),
    }
    if config.time_cond_proj_dim is not None:
        shapes[GUIDANCE] = (rows, config.time_cond_proj_dim)
    return shapes


def fixed_takes(rows: int, states: torch.Tensor) -> bool:
    """Return True if ``states`` are those of whole images, and prompts are as long as such a graph wants them."""
    return len(states) % rows == 0 and states.shape[1] == _TOKENS


def predict_fixed(graph: CompiledGraph, rows: int, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and deep features, image by image: a busy core has no use for more rows at once."""
    images = zip(*(torch.split(tensor, rows) for tensor in inputs), strict=True)
    predictions, deep = zip(*(graph(*image) for image in images), strict=True)
    return torch.cat(predictions), torch.cat(deep)


logger = logging.getLogger(__name__)


class CompiledEngine(CheckpointEngine):
    """Runs compiled graphs, and in PyTorch what there is no graph for: a network, or LoRAs that graphs do not take.

    ``components`` need weights in the text encoder's table of embeddings and in the safety checker only. ``make_eager``
    loads the others when they are needed first. ``make_controlnet`` is what makes ControlNets.
    """

    optimized = True

    def __init__(
        self,
        components: Components,
        graphs: Mapping[str, CompiledGraph],
        make_eager: Callable[[], EagerEngine],
        make_controlnet: Callable[[ControlNetWeights], ControlNet],
    ) -> None:
        super().__init__(components)
        self._graphs, self._make_eager, self._make_controlnet = graphs, make_eager, make_controlnet
        self._no_residuals = no_residuals(components.unet)
        self._fixed_rows = fixed_rows(components.unet.config)
        packed: LruCache[Any, Any] = LruCache(LORA_BATCH_BYTES)
        self._unet_loras = LoraPacker(UNET, lora_layouts(UNET, components.unet), packed)
        shallow = ShallowUNet(components.unet)
        part = {path for path, _ in target_modules(UNET, shallow)}
        self._shallow_loras = LoraPacker(UNET, lora_layouts(UNET, shallow), packed, part)
        self._text_loras = LoraPacker(TEXT_ENCODER, lora_layouts(TEXT_ENCODER, components.text_encoder), packed)

    @cached_property
    def _eager(self) -> EagerEngine:
        logger.info("loading the weights for what the compiled engine leaves to PyTorch")
        try:
            return self._make_eager()
        except Exception as error:  # the libraries raise what they like; the next request tries again
            logger.exception("the weights cannot be loaded")  # not for the caller: libraries name the server's files
            raise EngineFailure(
                "this request needs more than the compiled engine has, and the model's weights cannot be loaded"
            ) from error

    @torch.inference_mode()
    def encode_prompts(self, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> torch.Tensor:
        graph, packed = self._graphs.get(TEXT_ENCODER), self._text_loras.pack([loras] * len(chunks))
        if graph is None or packed is None:
            return self._eager.encode_prompts(chunks, clip_skip, loras).float().cpu()
        encoder = self._components.text_encoder
        ids = torch.tensor([chunk.ids for chunk in chunks])
        mask = [torch.tensor([chunk.attention_mask for chunk in chunks]).float()] if uses_mask(encoder.config) else []
        (states,) = graph(encoder.get_input_embeddings()(ids).float(), *packed, *mask)
        return states[-clip_skip]

    def computes_apart(self, loras: LoraSet | None) -> bool:
        return UNET in self._graphs and not self._unet_loras.takes(loras)

    @torch.inference_mode()
    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        states: torch.Tensor,
        loras: Sequence[LoraSet | None] | None = None,
        deep: torch.Tensor | None = None,
        residuals: Residuals | None = None,
        guidance: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        graph = self._graphs.get(UNET if deep is None else UNET_SHALLOW)
        packer = self._unet_loras if deep is None else self._shallow_loras
        packed = packer.pack(loras)
        if graph is None:
            return self._eager.predict(latents, timesteps, states, loras, deep, residuals, guidance)
        if packed is not None:
            inputs = (latents, timesteps.float(), states.float().cpu(), *(() if guidance is None else (guidance,)))
            if deep is not None:
                return graph(*inputs, deep, *packed)[0], deep
            fixed = self._graphs.get(fixed_name(*latents.shape[2:]))
            has_lora = any(tensor.numel() for tensor in packed)
            if fixed is not None and residuals is None and not has_lora and fixed_takes(self._fixed_rows, states):
                return predict_fixed(fixed, self._fixed_rows, inputs)
            prediction, features = graph(*inputs, *packed, *(residuals or self._no_residuals))
            return prediction, features
        wanted = list(loras or ())
        parts = _parts(packer, wanted)
        if len(parts) == 1:  # of LoRAs that the graph does not take
            return self._eager.predict(latents, timesteps, states, loras, deep, residuals, guidance)
        made = [
            self.predict(
                latents[rows],
                timesteps[rows],
                states[rows],
                [wanted[row] for row in rows],
                None if deep is None else deep[rows],
                None if residuals is None else tuple(residual[rows] for residual in residuals),
                None if guidance is None else guidance[rows],
            )
            for rows in parts
        ]
        order = torch.tensor([row for rows in parts for row in rows]).argsort()
        predictions, features = (torch.cat(found)[order] for found in zip(*made, strict=True))
        return predictions, features

    def make_controlnet(self, weights: ControlNetWeights) -> ControlNet:
        return self._make_controlnet(weights)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        if precise or VAE_ENCODER not in self._graphs:
            return self._eager.encode(pixels, precise=precise)
        return self._alone(VAE_ENCODER, torch.from_numpy(pixels).unsqueeze(0))

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
        if precise or VAE_DECODER not in self._graphs:
            return self._eager.decode(latents, precise=precise)
        picture: np.ndarray[Any, Any] = self._alone(VAE_DECODER, latents.unsqueeze(0))[0].numpy()
        return picture

    def _alone(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """Call a network that takes whole pictures, now and then: what it needs is not beside what steps need."""
        self._release(*self._graphs)
        try:
            (output,) = self._graphs[name](whole)
            return output
        finally:
            self._release(name)

    def _release(self, *names: str) -> None:
        for name in names:
            self._graphs[name].release()
        give_back()  # compilers free more small pieces than large ones


def _parts(packer: LoraPacker, loras: Sequence[LoraSet | None]) -> list[list[int]]:
    """The rows of a call that a graph does not take at once: only those go elsewhere that must."""
    taken = [packer.takes(row) for row in loras]
    if all(taken):  # they are too large together
        kinds = list(dict.fromkeys(loras))
        return [[row for row, kind in enumerate(loras) if kind == wanted] for wanted in kinds]
    parts = [[row for row, found in enumerate(taken) if found is wanted] for wanted in (True, False)]
    return [rows for rows in parts if rows]


def load_compiled(settings: Settings, graphs: LoadingGraphs) -> CompiledEngine:
    """The engine of a model directory and of graphs that were made of it.

    Any thread may call it: with PyTorch it does no more than to read and convert the embeddings and the safety checker.
    Raises ``LoadError``, ``ArtifactError`` for a file of the model that cannot be read, and what the compiler raises
    about its files.
    """
    # First: a model that cannot be read is told by its own files, at once, and not after seconds of compiling.
    at_first = fingerprint(settings.model_dir, settings.vae)
    skeleton = load_skeleton(settings, torch.float32 if graphs.precision == "float32" else torch.bfloat16)
    words = skeleton.text_encoder.get_input_embeddings()
    words.weight = torch.nn.Parameter(on_disk(words.weight, settings.cache_dir))  # a prompt reads a row for each token
    sides = [[math.ceil(side / skeleton.pixels_per_latent) for side in size] for size in settings.fixed_sizes]
    for width, height in dict.fromkeys(map(tuple, sides)):  # some sizes have the same latents
        graphs.fix(UNET, fixed_name(height, width), fixed_shapes(skeleton.unet.config, height, width))

    def make_controlnet(weights: ControlNetWeights) -> ControlNet:
        if graphs.controlnet is None:
            return EagerControlNet(weights, *device_and_dtype(settings))
        try:
            graph = graphs.compiler.bind(graphs.controlnet, graphs.precision, weights.tensors)
        except UnfitWeights as error:
            logger.info("a ControlNet is computed by PyTorch: %s", error)
            return EagerControlNet(weights, *device_and_dtype(settings))
        return CompiledControlNet(weights, graph, graphs.precision)

    def make_eager() -> EagerEngine:
        eager = EagerEngine(load_weights(settings, skeleton))
        if fingerprint(settings.model_dir, settings.vae) != at_first:
            raise LoadError(f"the weights in {settings.model_dir} are no longer those that the graphs were made of")
        return eager

    engine = CompiledEngine(skeleton, graphs.loaded(), make_eager, make_controlnet)
    give_back()  # what loading has needed
    return engine
