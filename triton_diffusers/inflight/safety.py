"""Final composition and safety check of every returned image."""

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
    """Set a sample's final pixels and its safety flag.

    ``decoded`` is the decoder's float array (3, height, width) in -1 … 1, or None to return the input image unchanged,
    since an autoencoder is lossy. The checker sees the final image: full size, with unmasked pixels pasted back.
    Nothing may change it afterwards. Flagged images are blackened unless the request allows them to be flagged only.
    """
    source = job.sources
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
    """Return True if flagged images of a job must be blackened."""
    return job.request.safety_action is SafetyAction.BLACKEN


def release_control_images(engine: Engine, job: Job) -> None:
    """Check returned control images; flagged ones are blackened or flagged only, with a warning each."""
    if not job.request.return_control_image:
        return
    # ControlNets with the same control image share the array.
    distinct = {id(pixels): pixels for pixels in job.control_images}
    unsafe = {key: engine.is_unsafe(pixels) for key, pixels in distinct.items()}
    for index, pixels in enumerate(job.control_images):
        if unsafe[id(pixels)]:
            verdict = "blackened, the safety checker flagged it" if blackens(job) else "flagged by the safety checker"
            job.warnings.append(f"control_images_base64: image {index + 1} is {verdict}")
    if blackens(job):
        job.control_images = [np.zeros_like(image) if unsafe[id(image)] else image for image in job.control_images]
