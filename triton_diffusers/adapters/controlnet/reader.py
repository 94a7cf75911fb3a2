"""Read a ControlNet's weights for the loaded base model.

Anything that does not fit the base model is an error: with a partly loaded network, images would be wrong without any
message.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from triton_diffusers.adapters.controlnet.config import FILE, network_for, read_config
from triton_diffusers.adapters.controlnet.layout import HINT, names_in
from triton_diffusers.adapters.controlnet.weights import ControlNetWeights, Identity
from triton_diffusers.adapters.files import WeightError, WeightFinder, is_plain, named, opened
from triton_diffusers.adapters.places import CONTROLNET, CONTROLNET_IN_FOLDER, CONTROLNET_SUFFIXES
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.util.files import file_identity

_FIELD = "controlnet_path"
_IMAGE_CHANNELS = 3


class ControlNetReader:
    """Reads ControlNets of a model directory whose UNet has the config ``unet_config``.

    Thread-safe, as it computes nothing with PyTorch. The path ``""`` means the model directory's own ControlNet,
    ``controlnet/``. Both methods raise ``InvalidRequest`` and ``NotFound``.
    """

    def __init__(
        self, model_dir: Path, unet_config: Mapping[str, Any], *, pixels_per_latent: int, max_file_bytes: int
    ) -> None:
        self._finder = WeightFinder(model_dir.resolve(), _FIELD, CONTROLNET_SUFFIXES, CONTROLNET_IN_FOLDER)
        self._unet_config = unet_config
        self._pixels_per_latent = pixels_per_latent
        self._max_file_bytes = max_file_bytes

    def identity(self, path: str) -> Identity:
        """Return the identity of the ControlNet at a path, without opening its files."""
        return _identity(*self._find(path))

    def read(self, path: str) -> ControlNetWeights:
        """Return the ControlNet at a path relative to the model directory."""
        file, config_file = self._find(path)
        identity = _identity(file, config_file)
        try:
            config = read_config(config_file) if config_file else {}
            with opened(file, self._max_file_bytes) as (tensors, _):
                weights = {name: tensors[key] for name, key in names_in(tensors, self._unet_config).items()}
            _check_tensors(weights, identity[0][1])
            return ControlNetWeights(identity, self._fitted(config, weights), weights)
        except WeightError as error:
            raise InvalidRequest(_FIELD, path or CONTROLNET, str(error)) from error

    def _find(self, path: str) -> tuple[Path, Path | None]:
        """Return the weight file, and its config if there is one."""
        file = self._finder.find(path or CONTROLNET)
        return file, self._finder.beside(path or CONTROLNET, FILE)

    def _fitted(self, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Return the complete config of a network that has exactly these weights."""
        network = network_for(self._unet_config, config, self._image_channels(weights))
        expected = network.state_dict()
        if unknown := sorted(weights.keys() - expected.keys()):
            raise WeightError(f"it has tensors that no ControlNet of this model has: {named(unknown)}")
        if missing := sorted(expected.keys() - weights.keys()):
            raise WeightError(f"it has no tensor {named(missing)}")
        for name, tensor in weights.items():
            if tensor.shape != expected[name].shape:
                has, needs = tuple(tensor.shape), tuple(expected[name].shape)
                raise WeightError(f"{name} has the shape {has}; a ControlNet of this model has {needs}")
        return {key: value for key, value in network.config.items() if not key.startswith("_")}

    def _image_channels(self, weights: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
        """Return the channels of the layers that shrink an image to the size of its latents."""
        per_side = 2 ** (sum(name.startswith(f"{HINT}blocks.") for name in weights) // 4)  # two convolutions each
        if per_side != self._pixels_per_latent:
            raise WeightError(
                f"it takes {per_side} pixels per latent, in each direction; expected {self._pixels_per_latent}"
            )
        halvings = self._pixels_per_latent.bit_length() - 1
        names = [f"{HINT}conv_in.weight", *(f"{HINT}blocks.{2 * level + 1}.weight" for level in range(halvings))]
        if missing := [name for name in names if name not in weights or weights[name].ndim != 4]:
            raise WeightError(f"it has no convolution {named(missing)}")
        channels = weights[names[0]].shape[1]
        if channels != _IMAGE_CHANNELS:
            raise WeightError(f"it takes images of {channels} channels; expected {_IMAGE_CHANNELS}")
        return tuple(weights[name].shape[0] for name in names)


def _check_tensors(weights: Mapping[str, torch.Tensor], file_bytes: int) -> None:
    for name, tensor in weights.items():
        if not is_plain(tensor) or not tensor.is_floating_point():
            raise WeightError(f"{named([name])}: {tensor.dtype} weights are unsupported")
    # A pickle may repeat a tensor any number of times.
    if sum(tensor.nbytes for tensor in weights.values()) > file_bytes:
        raise WeightError("its tensors are larger than the file")


def _identity(*files: Path | None) -> Identity:
    return tuple(file_identity(file) for file in files if file is not None)
