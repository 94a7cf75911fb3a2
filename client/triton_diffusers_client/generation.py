"""The answer to one request."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from triton_diffusers_client.errors import ServerError
from triton_diffusers_client.fields import CONTROL_OUTPUTS, OUTPUTS
from triton_diffusers_client.image import EncodedImage, Image
from triton_diffusers_client.tensors import Array, decode

_SEEDS = 2**64
# An ensemble puts this before the outputs that bear an input's name.
_ENSEMBLE_PREFIX = "reply_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Result of a request. Names are the wire's; ``images`` holds the images, however they were returned.

    ``seed`` is the first image's. ``prompt`` is as it went into the model. ``image_url`` and ``oss_url`` are empty
    unless the server stores results. ``parameters`` are the fields that make the first image again.
    ``use_blade``: an optimised engine drew them, with the sampling ``profile``. ``warnings`` name deviations from the
    request. ``queue_seconds`` and ``run_seconds`` are the server's own clock. ``control_images`` are each ControlNet's,
    with ``return_control_image``.
    """

    task_id: str
    seed: int
    prompt: str
    images: tuple[Image, ...]
    image_url: tuple[str, ...]
    oss_url: tuple[str, ...]
    is_nsfw: tuple[bool, ...]
    parameters: Mapping[str, Any]
    use_blade: bool
    profile: str
    warnings: tuple[str, ...]
    queue_seconds: float
    run_seconds: float
    control_images: tuple[EncodedImage, ...] = ()

    def _repr_html_(self) -> str:
        """Show the images in a notebook."""
        return "".join(
            f'<img src="data:image/{image.format};base64,{base64.b64encode(image.data).decode()}"/>'
            for image in self.images
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> Self:
        """Decode an answer. Raises ``ServerError`` if it is invalid."""
        sent = {name.removeprefix(_ENSEMBLE_PREFIX): array for name, array in tensors.items()}
        # Only the models with ControlNets have the outputs of those.
        values = decode(sent, (*OUTPUTS, *(output for output in CONTROL_OUTPUTS if output.name in sent)))
        try:
            seed = int(values["seed"])
            encoded = values["images"] or tuple(base64.urlsafe_b64decode(text) for text in values["images_base64"])
            # Without return_images there is a flag for each image, and none of the images.
            flags = values["is_nsfw"] if encoded else ()
            images = tuple(
                Image(data, (seed + index) % _SEEDS, flag)
                for index, (data, flag) in enumerate(zip(encoded, flags, strict=True))
            )
            return cls(
                task_id=values["task_id"].decode(),
                seed=seed,
                prompt=values["prompt"].decode(),
                images=images,
                image_url=tuple(url.decode() for url in values["image_url"]),
                oss_url=tuple(url.decode() for url in values["oss_url"]),
                is_nsfw=values["is_nsfw"],
                parameters=json.loads(values["parameters"]),
                use_blade=values["use_blade"],
                profile=values["profile"].decode(),
                warnings=tuple(warning.decode() for warning in values["warnings"]),
                queue_seconds=values["queue_seconds"],
                run_seconds=values["run_seconds"],
                control_images=tuple(
                    EncodedImage(base64.urlsafe_b64decode(text)) for text in values.get("control_images_base64", ())
                ),
            )
        except ValueError as error:
            raise ServerError(f"the answer is invalid: {error}") from error
