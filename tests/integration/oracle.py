"""diffusers' own pipelines: what our images are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from triton_diffusers.api.request import GenerationRequest, GenerationResult
from triton_diffusers.inflight.job import Job

_MULTISTEP, _SINGLESTEP = diffusers.DPMSolverMultistepScheduler, diffusers.DPMSolverSinglestepScheduler
_SPACED: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "DPM++ 2M": (_MULTISTEP, {"algorithm_type": "dpmsolver++"}),
    "DPM++ 2M SDE": (_MULTISTEP, {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 3M SDE": (_MULTISTEP, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "DPM++ SDE": (_SINGLESTEP, {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2S": (_SINGLESTEP, {"algorithm_type": "dpmsolver++"}),
    "Euler": (diffusers.EulerDiscreteScheduler, {}),
    "Heun": (diffusers.HeunDiscreteScheduler, {}),
    "LMS": (diffusers.LMSDiscreteScheduler, {}),
    "DPM2": (diffusers.KDPM2DiscreteScheduler, {}),
    "DPM2 a": (diffusers.KDPM2AncestralDiscreteScheduler, {}),
    "UniPC": (diffusers.UniPCMultistepScheduler, {}),
    "DEIS": (diffusers.DEISMultistepScheduler, {}),
}
# The documented pairing of names with diffusers' classes, written down a second time.
ORACLE: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    **_SPACED,
    **{f"{name} Karras": (kind, {**options, "use_karras_sigmas": True}) for name, (kind, options) in _SPACED.items()},
    **{
        f"{name} Exponential": (kind, {**options, "use_exponential_sigmas": True})
        for name, (kind, options) in _SPACED.items()
    },
    "Euler a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "DDIM": (diffusers.DDIMScheduler, {}),
    "DDPM": (diffusers.DDPMScheduler, {}),
    "PNDM": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "LCM": (diffusers.LCMScheduler, {}),
}


def result_of(job: Job) -> GenerationResult:
    """Return the result of an ended job; raise its error, with the cause that the server only logs."""
    if job.error is not None:
        raise job.error
    assert job.result is not None
    return job.result


class Oracle:
    """diffusers' pipelines on one checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.config = self.pipeline.scheduler.config

    def text_to_image(self, request: GenerationRequest, seed: int) -> np.ndarray[Any, Any]:
        """One image's pixels, from text alone."""
        return self.run(self.pipeline, request, seed, width=request.width, height=request.height)

    def redrawn(self, request: GenerationRequest, seed: int, image: Image.Image) -> np.ndarray[Any, Any]:
        """One image's pixels, from text and an image of the request's size."""
        pipeline = diffusers.StableDiffusionImg2ImgPipeline(**self.pipeline.components, requires_safety_checker=False)
        return self.run(pipeline, request, seed, image=image, strength=request.denoising_strength)

    def inpainted(
        self, request: GenerationRequest, seed: int, image: Image.Image, mask: Image.Image
    ) -> np.ndarray[Any, Any]:
        """One image's pixels, from text, an image of the result's size, and a mask."""
        parts = {name: part for name, part in self.pipeline.components.items() if name != "image_encoder"}
        pipeline = diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
        width, height = image.size
        return self.run(
            pipeline,
            request,
            seed,
            image=image,
            mask_image=mask,
            width=width,
            height=height,
            strength=request.denoising_strength,
        )

    def run(self, pipeline: Any, request: GenerationRequest, seed: int, **options: Any) -> np.ndarray[Any, Any]:
        """One image's pixels by a pipeline of diffusers', given what it wants besides the request's own."""
        kind, overrides = ORACLE[request.scheduler]
        pipeline.scheduler = kind.from_config(self.config, **overrides)
        pipeline.set_progress_bar_config(disable=True)
        made = pipeline(
            request.prompt,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
            **options,
        )
        return np.asarray((made.images[0] * 255).round(), np.uint8)
