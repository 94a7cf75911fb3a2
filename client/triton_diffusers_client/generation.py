"""The images of one request."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triton_diffusers_client.image import EncodedImage, Image

_SEEDS = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Result of a request. Names are the wire's; ``images`` holds the images, however they were returned.

    ``seed`` is the first image's. ``prompt`` is as it went into the model. ``image_url`` and ``oss_url`` are empty
    unless the server stores results. ``parameters`` are the fields that make the first image again.
    ``use_blade``: an optimised engine drew them, with the sampling ``profile``. ``warnings`` name deviations from the
    request. ``queue_seconds`` and ``run_seconds`` are the server's own clock. ``control_images`` are each ControlNet's,
    with ``return_control_image``. ``job_id`` is the job's at a gateway, else ``task_id``.
    """

    job_id: str = ""
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


def images_of(seed: int, encoded: tuple[bytes, ...], flags: tuple[bool, ...]) -> tuple[Image, ...]:
    """Return the images of a request. Raises ``ValueError`` if there is not one flag for each."""
    return tuple(
        Image(data, (seed + index) % _SEEDS, flag)
        for index, (data, flag) in enumerate(zip(encoded, flags, strict=True))
    )
