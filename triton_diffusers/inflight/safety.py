"""The last look at every image that leaves the server: composed as it is returned, then judged by the checker."""

from __future__ import annotations

from typing import Any

import numpy as np

from triton_diffusers.api.request import SafetyAction
from triton_diffusers.engines import Engine
from triton_diffusers.images.encode import resized, to_pixels
from triton_diffusers.images.paste import paste_back
from triton_diffusers.inflight.job import Job, Sample

Array = np.ndarray[Any, Any]


def release(engine: Engine, job: Job, sample: Sample, decoded: Array | None) -> None:
    """Set a sample's pixels, as they are returned, and its flag.

    ``decoded`` is the decoder's float array (3, height, width) in -1 … 1, or None for the input image as it is: no
    autoencoder gives back exactly what it was given. The checker sees the image at its final size,
    with unmasked pixels pasted back: nothing may be added to it afterwards. A flagged image is blackened, unless the
    request may have it flagged only.
    """
    source = job.pictures
    if decoded is not None:
        pixels = resized(to_pixels(decoded), job.request.size)
    elif source is not None and source.image is not None:
        pixels = resized(np.array(source.image), job.request.size)
    else:
        raise ValueError("an image that was not decoded needs an input image")
    if source is not None and source.image is not None and source.shown is not None:
        pixels = paste_back(pixels, source.image, source.shown)
    sample.flagged = engine.is_unsafe(pixels)
    sample.pixels = np.zeros_like(pixels) if sample.flagged and blackens(job) else pixels


def blackens(job: Job) -> bool:
    """Return True if flagged images of a job must not leave the server."""
    return job.request.safety_action is SafetyAction.BLACKEN


def release_control_images(engine: Engine, job: Job) -> None:
    """Blacken flagged control images of a job that returns them (or flag them only), with a warning each."""
    if not job.request.return_control_image:
        return
    # ControlNets with the same control image share the array.
    distinct = {id(pixels): pixels for pixels in job.control_pictures}
    unsafe = {key: engine.is_unsafe(pixels) for key, pixels in distinct.items()}
    for index, pixels in enumerate(job.control_pictures):
        if unsafe[id(pixels)]:
            told = "blackened, the safety checker flagged it" if blackens(job) else "flagged by the safety checker"
            job.warnings.append(f"control_images_base64: image {index + 1} is {told}")
    if blackens(job):
        job.control_pictures = [np.zeros_like(image) if unsafe[id(image)] else image for image in job.control_pictures]
