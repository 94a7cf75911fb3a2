"""diffusers' SDXL pipelines on a tiny random checkpoint, and a loop that draws the same requests."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image, ImageDraw

from tests.integration.calls import WITHIN
from tests.integration.oracle import ORACLE, result_of
from tests.sdxl_model import SIDE
from triton_diffusers.api.request import Function, GenerationRequest
from triton_diffusers.inflight.loop import EngineLoop

SAME = 40.0  # dB
PROMPT, NEGATIVE = "a red apple on a blue background", "a green pear"


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def source() -> Image.Image:
    ramp = np.linspace(0, 255, SIDE, dtype=np.uint8)
    across = np.tile(ramp, (SIDE, 1))
    image = Image.fromarray(np.stack([across, across.T, np.full_like(across, 90)], 2))
    ImageDraw.Draw(image).ellipse((12, 8, 44, 52), fill=(200, 20, 20))
    return image


def mask() -> Image.Image:
    image = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(image).rectangle((30, 5, SIDE, 50), fill=255)
    return image


def request_for(function: Function = Function.TEXT_TO_IMAGE, **changes: Any) -> GenerationRequest:
    inputs: dict[str, Any] = {} if function is Function.TEXT_TO_IMAGE else {"image": png(source())}
    if function is Function.INPAINT:
        inputs["mask"] = png(mask())
    fields = {"steps": 4, "width": SIDE, "height": SIDE, "seed": 7, "guidance_scale": 5.0, "keep_unmasked": False}
    fields |= {"prompt": PROMPT, "negative_prompt": NEGATIVE, "scheduler": "Euler"}
    return GenerationRequest(task_id="sdxl", function=function, **{**fields, **inputs, **changes})


class SdxlOracle:
    """diffusers' pipelines on one checkpoint, with the ControlNets and LoRAs of its model directory."""

    def __init__(self, model_dir: Path) -> None:
        self._model_dir = model_dir
        self.pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
            model_dir / "base_model", dtype=torch.float32, add_watermarker=False
        )
        self._config = self.pipeline.scheduler.config

    def draw(self, request: GenerationRequest, seed: int, **options: Any) -> np.ndarray[Any, Any]:
        """Return one image's pixels; options replace the pipeline's arguments."""
        kind: Any = {
            Function.TEXT_TO_IMAGE: diffusers.StableDiffusionXLPipeline,
            Function.IMAGE_TO_IMAGE: diffusers.StableDiffusionXLImg2ImgPipeline,
            Function.INPAINT: diffusers.StableDiffusionXLInpaintPipeline,
        }[request.function]
        parts = dict(self.pipeline.components)
        arguments: dict[str, Any] = {"width": request.width, "height": request.height}
        if request.function is not Function.TEXT_TO_IMAGE:
            arguments |= {"image": source(), "strength": request.denoising_strength}
        if request.function is Function.IMAGE_TO_IMAGE:
            del arguments["width"], arguments["height"]
        if request.function is Function.INPAINT:
            arguments["mask_image"] = mask()
        if request.controls:
            kind = diffusers.StableDiffusionXLControlNetPipeline
            folders = [self._model_dir / choice.path for choice in request.controls]
            parts["controlnet"] = [diffusers.ControlNetModel.from_pretrained(folder) for folder in folders]
            arguments["image"] = [source()] * len(folders)
            arguments["controlnet_conditioning_scale"] = [choice.scale for choice in request.controls]
        pipeline = kind(**parts, add_watermarker=False)
        sampler, overrides = ORACLE[request.scheduler]
        pipeline.scheduler = sampler.from_config(self._config, **overrides)
        pipeline.set_progress_bar_config(disable=True)
        names = [f"lora-{number}" for number in range(len(request.loras))]
        texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt or None}
        try:
            for name, lora in zip(names, request.loras, strict=True):
                pipeline.load_lora_weights(self._model_dir / lora.path, adapter_name=name)
            if names:
                pipeline.set_adapters(names, [lora.weight for lora in request.loras])
            made = pipeline(
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                clip_skip=request.clip_skip - 1 or None,
                generator=torch.Generator().manual_seed(seed),
                output_type="np",
                **{**texts, **arguments, **options},
            )
        finally:
            if names:
                pipeline.unload_lora_weights()
        return np.asarray((made.images[0] * 255).round(), np.uint8)

    def encoded(self, *texts: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the hidden states of these texts, one after another, and the pooled first one."""
        pieces = [self.pipeline.encode_prompt(text, do_classifier_free_guidance=False) for text in texts]
        return torch.cat([piece[0] for piece in pieces], dim=1), pieces[0][2]


def drawn(loop: EngineLoop, requests: Mapping[str, GenerationRequest]) -> dict[str, tuple[bytes, ...]]:
    """Draw all requests at once."""
    jobs = {name: loop.submit(request) for name, request in requests.items()}
    for job in jobs.values():
        loop.wait([job], WITHIN)
    return {name: result_of(job).images for name, job in jobs.items()}
