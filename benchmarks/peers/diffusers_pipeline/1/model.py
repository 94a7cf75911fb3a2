"""The peer: diffusers' own pipeline, called for one request after the other.

What the measured model does, this one does the plain way: the same weights in float32, DPM++ 2M, the safety checker,
one seed for each image, PNG at the same compression level. All images of a request share the pipeline's UNet calls.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Prompt, steps, seed and number of images in; PNG pictures out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the checkpoint that the launcher names."""
        from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

        folder = Path(os.environ["TRITON_DIFFUSERS_MODEL_DIR"]) / "base_model"
        self._pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self._pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
            self._pipeline.scheduler.config, algorithm_type="dpmsolver++", use_karras_sigmas=False
        )
        self._pipeline.set_progress_bar_config(disable=True)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        images = int(_value(request, "image_num"))
        seed = int(_value(request, "seed"))
        made = self._pipeline(
            prompt=_value(request, "prompt").decode(),
            negative_prompt=(_value(request, "negative_prompt") or b"").decode(),
            num_inference_steps=int(_value(request, "steps")),
            guidance_scale=float(_value(request, "guidance_scale")),
            width=int(_value(request, "width")),
            height=int(_value(request, "height")),
            num_images_per_prompt=images,
            generator=[torch.Generator().manual_seed(seed + index) for index in range(images)],
        )
        encoded = np.array([[_png(picture) for picture in made.images]], dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("images", encoded)])


def _value(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy().flat[0]


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()
