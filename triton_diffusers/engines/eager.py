"""Eager engine: a checkpoint's modules in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel
from torch import nn

from triton_diffusers.adapters.controlnet import ControlNetWeights
from triton_diffusers.adapters.lora import (
    ChangeBatch,
    LoraBatch,
    LoraSet,
    LoraStacker,
    grouped,
    target_modules,
)
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.base import CheckpointEngine
from triton_diffusers.engines.batch import Batch
from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.families.denoiser import Residuals
from triton_diffusers.families.unet import added_conditions
from triton_diffusers.prompts import Tokens
from triton_diffusers.util.cache import LruCache

_Hook = Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]


class LoraHooks:
    """Forward hooks that add LoRAs to a module during one call."""

    def __init__(self, name: str, module: Any, cache: LruCache[Any, Any]) -> None:
        parameter = next(module.parameters())
        self._name = name
        self._modules: dict[str, Any] = dict(target_modules(name, module))
        self._stacker = LoraStacker(name, parameter.device, parameter.dtype, cache)

    @contextmanager
    def applied(self, rows: Sequence[LoraSet | None] | None) -> Iterator[None]:
        """Context in which the module's rows have these LoRAs; its calls must have exactly these rows."""
        handles: list[torch.utils.hooks.RemovableHandle] = []
        try:
            if rows is not None and any(rows):
                for path, batch in self._batches(rows):
                    handles.append(self._modules[path].register_forward_hook(_adding(batch)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _batches(self, rows: Sequence[LoraSet | None]) -> Iterator[tuple[str, LoraBatch | ChangeBatch]]:
        yield from self._stacker.stack(rows).items()
        groups = [{} if loras is None else loras.changes_of(self._name) for loras in grouped(rows)]
        for path in dict.fromkeys(path for changes in groups for path in changes):
            yield path, ChangeBatch([changes.get(path, ()) for changes in groups])


def _adding(batch: LoraBatch | ChangeBatch) -> _Hook:
    """Return a hook that adds ``batch`` to its layer's output."""

    def add(layer: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        batch.add(layer, inputs[0], output)

    return add


class EagerControlNet:
    """A ControlNet as diffusers' network, on one device in one precision."""

    def __init__(self, weights: ControlNetWeights, device: torch.device, dtype: torch.dtype) -> None:
        with torch.device("meta"):
            network = ControlNetModel.from_config(weights.config)
        converted = {name: tensor.to(device, dtype, copy=True) for name, tensor in weights.tensors.items()}
        network.load_state_dict(converted, assign=True)
        self._network = network.to(memory_format=torch.channels_last).eval()
        self._device, self._dtype = device, dtype
        self.nbytes = sum(parameter.nbytes for parameter in network.parameters())

    @torch.inference_mode()
    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, images: torch.Tensor
    ) -> Residuals:
        given = _moved(inputs, self._device, self._dtype)
        skips, middle = self._network(
            latents.to(self._device, self._dtype),
            timesteps.to(self._device),
            given[STATES],
            images.to(self._device, self._dtype, memory_format=torch.channels_last),
            return_dict=False,
            **added_conditions(given),
        )
        return tuple(residual.float() for residual in (*skips, middle))


# Cache size of LoRAs stacked per batch; the latest batch is always kept.
LORA_BATCH_BYTES = 128 * 2**20


class EagerEngine(CheckpointEngine):
    """Engine that runs a checkpoint's modules in PyTorch."""

    optimized = False

    def __init__(self, components: Components) -> None:
        super().__init__(components)
        for module in (components.denoiser, components.vae):
            module.to(memory_format=torch.channels_last)  # saves a few per cent of a step and a fifth of a decoding
        parameter = next(components.denoiser.parameters())
        self.device, self._dtype = parameter.device, parameter.dtype
        self._denoiser = components.family.denoiser(components.denoiser)
        stacks: LruCache[Any, Any] = LruCache(LORA_BATCH_BYTES)
        hooks = {name: LoraHooks(name, module, stacks) for name, module in components.networks.items()}
        self._denoiser_loras = hooks.pop(components.family.entry.denoiser)
        self._text_loras = tuple(hooks.values())

    @torch.inference_mode()
    def encode_prompts(self, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> Inputs:
        with ExitStack() as applied:
            for hooks in self._text_loras:
                applied.enter_context(hooks.applied([loras] * len(chunks)))
            return self.family.encode_text(self._components.text_encoders, chunks, clip_skip)

    def computes_apart(self, loras: LoraSet | None) -> bool:
        return False

    @torch.inference_mode()
    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        latents, timesteps = batch.latents.to(self.device, self._dtype), batch.timesteps.to(self.device)
        inputs = _moved(batch.inputs, self.device, self._dtype)
        with self._denoiser_loras.applied(batch.loras):
            if batch.deep is not None:
                features = batch.deep.to(self.device, self._dtype, memory_format=torch.channels_last)
                return self._denoiser.shallow(latents, timesteps, inputs, features).float(), batch.deep
            residuals = batch.residuals
            if residuals is not None:
                residuals = tuple(residual.to(self.device, self._dtype) for residual in residuals)
            prediction, features = self._denoiser.whole(latents, timesteps, inputs, residuals)
            return prediction.float(), features.float().contiguous()

    def make_controlnet(self, weights: ControlNetWeights) -> EagerControlNet:
        return EagerControlNet(weights, self.device, self._dtype)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        vae = self._vae(precise)
        image = torch.from_numpy(pixels).unsqueeze(0).to(self.device, vae.dtype)
        latents = vae.encode(image.contiguous(memory_format=torch.channels_last)).latent_dist
        return self.family.latents.from_vae(latents.mean, latents.std).float()

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
        vae = self._vae(precise)
        values = self.family.latents.to_vae(latents.unsqueeze(0).to(self.device, vae.dtype))
        image: np.ndarray[Any, Any] = vae.decode(values, return_dict=False)[0][0].float().cpu().numpy()
        return image

    def _vae(self, precise: bool) -> Any:
        overflows = self.family.decodes_in_float32 and self._dtype == torch.float16
        return self._precise_vae if precise or overflows else self._components.vae

    @cached_property
    def _precise_vae(self) -> Any:
        vae = self._components.vae
        return vae if vae.dtype == torch.float32 else copy.deepcopy(vae).float()


def _moved(inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    return {name: value.to(device, dtype) for name, value in inputs.items()}
