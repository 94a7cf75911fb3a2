"""The preprocessors of a server."""

from __future__ import annotations

import torch

from triton_diffusers.errors import EngineFailure, InvalidImage, InvalidRequest, NotFound
from triton_diffusers.preprocess.networks import MissingWeights, Networks, UnreadableWeights
from triton_diffusers.preprocess.registry import PREPROCESSORS, WEIGHTS, Pixels, Preprocessor
from triton_diffusers.settings import Settings

FIELD = "process_func"
_MEGABYTE = 2**20


class Preprocessors:
    """Makes control images on one device, in the caller's thread; not thread-safe."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._settings = settings
        self._networks = Networks(settings.preprocessors_dir, device, settings.preprocessor_cache_megabytes * _MEGABYTE)

    def process(self, name: str, pixels: Pixels) -> Pixels:
        """Return the control image of RGB pixels, uint8 (height, width, 3), with the same size.

        Raises: InvalidRequest: the name is unknown. InvalidImage: the image exceeds the settings' limits. NotFound:
        the weights are not downloaded. EngineFailure: the weights are broken, or a package is not installed.
        """
        if name not in PREPROCESSORS:
            raise InvalidRequest(FIELD, name, f"known: {', '.join(PREPROCESSORS)}")
        self._check_size(pixels)
        try:
            return self._make(name).process(pixels)
        except MissingWeights as error:
            raise NotFound(
                f"{FIELD}: {name!r} needs preprocessors/{error.path} of {error.repository}; on the server, get it with:"
                f" triton-diffusers fetch-preprocessors {name}"
            ) from error
        except UnreadableWeights as error:
            raise EngineFailure(
                f"{FIELD}: {name!r}: preprocessors/{error.folder} cannot be loaded; the server's log has the reason"
            ) from error

    def _make(self, name: str) -> Preprocessor:
        try:
            kind = PREPROCESSORS[name]
        except ImportError as error:
            raise EngineFailure(f"{FIELD}: {error}") from error
        made: Preprocessor = kind(self._networks) if name in WEIGHTS else kind()
        return made

    def _check_size(self, pixels: Pixels) -> None:
        height, width = pixels.shape[:2]
        limits = self._settings
        if min(width, height) < 1 or max(width, height) > limits.max_side:
            raise InvalidImage("image", f"{width}×{height}", f"each side has 1 to {limits.max_side} pixels")
        if width * height > limits.max_pixels:
            raise InvalidImage("image", f"{width}×{height}", f"at most {limits.max_pixels} pixels")
