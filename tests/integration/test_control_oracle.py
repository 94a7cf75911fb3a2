"""Images with ControlNets are those of diffusers' own ControlNet pipelines.

All requests are in flight at once: those of different ControlNets, and without any, share their UNet calls.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests import lora_files
from tests.controlnet_files import random_controlnet, save_folder
from tests.integration.calls import pixels, psnr
from tests.integration.conftest import ROOT
from tests.integration.oracle import Oracle, result_of
from tests.integration.test_image_oracle import HEIGHT, SEED, WIDTH, mask, png, source_image
from tests.integration.test_image_oracle import request_for as imaged_request
from tests.waiting import WITHIN
from triton_diffusers.api.request import ControlChoice, Function, GenerationRequest, LoraChoice
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.settings import Settings

BASE_MODEL = ROOT / "models" / "emoji" / "base_model"
SAME = 40.0  # dB
DIFFERENT = 30.0
STEPS = 4
LORA = "lora/random.safetensors"


def drawing(shift: int) -> Image.Image:
    """Return a control image: white lines on black."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20 + shift, 8, 60 + shift, 52), outline="white")
    draw.line((0, shift, WIDTH, HEIGHT - shift), fill="white")
    return image


DRAWINGS = drawing(4), drawing(15)


def control(number: int, **changes: Any) -> ControlChoice:
    fields = {"path": f"controlnet-{number}", "image": png(DRAWINGS[number]), "scale": 1.0}
    return ControlChoice(**{**fields, **changes})


ONE = (control(0),)
TWO = (control(0, scale=0.6), control(1, scale=1.3))
PARTLY = (control(0, start=0.25), control(1, end=0.5))
SAME_NET_TWICE = (control(0), control(0, image=png(DRAWINGS[1]), scale=0.5))
CASES = {
    "none": (),
    "one": ONE,
    "two": TWO,
    "partly": PARTLY,
    "same net twice": SAME_NET_TWICE,
    "weak": (control(1, scale=0.3),),
    "own image": (ControlChoice(path="controlnet-1"),),
}
# Residuals and function meet in the part of the steps that is drawn, and in the image that both may want.
WITH_IMAGES = (Function.IMAGE_TO_IMAGE, Function.INPAINT)
FUNCTIONS_OF = {"partly": (Function.TEXT_TO_IMAGE, *WITH_IMAGES), "own image": WITH_IMAGES}
STRONG = (control(0, scale=4.0),), (control(1, scale=4.0),), (control(0, scale=4.0), control(1, scale=4.0))


def request_for(function: Function = Function.TEXT_TO_IMAGE, **changes: Any) -> GenerationRequest:
    return imaged_request(function, **{"steps": STEPS, **changes})


class ControlOracle:
    """diffusers' ControlNet pipelines on a base model, with the ControlNets and LoRAs of a model directory."""

    def __init__(self, model_dir: Path, base_model: Path = BASE_MODEL) -> None:
        self._model_dir = model_dir
        self._oracle = Oracle(base_model)
        self._nets: dict[str, Any] = {}

    def text_to_image(self, request: GenerationRequest, seed: int = SEED) -> np.ndarray[Any, Any]:
        kinds = {
            Function.TEXT_TO_IMAGE: diffusers.StableDiffusionControlNetPipeline,
            Function.IMAGE_TO_IMAGE: diffusers.StableDiffusionControlNetImg2ImgPipeline,
            Function.INPAINT: diffusers.StableDiffusionControlNetInpaintPipeline,
        }
        if not request.controls:
            plain = {
                Function.TEXT_TO_IMAGE: lambda: self._oracle.text_to_image(request, seed),
                Function.IMAGE_TO_IMAGE: lambda: self._oracle.redrawn(request, seed, source_image()),
                Function.INPAINT: lambda: self._oracle.inpainted(request, seed, source_image(), mask()),
            }
            return plain[request.function]()
        nets = [self._net(choice.path) for choice in request.controls]
        seen = [self._seen(choice) for choice in request.controls]
        pipeline = kinds[request.function](
            **self._oracle.pipeline.components, controlnet=nets, requires_safety_checker=False
        )
        if request.loras:
            for number, lora in enumerate(request.loras):
                pipeline.load_lora_weights(self._model_dir / lora.path, adapter_name=f"lora-{number}")
            pipeline.set_adapters(
                [f"lora-{number}" for number in range(len(request.loras))], [lora.weight for lora in request.loras]
            )
        try:
            return self._call(pipeline, request, seed, seen)
        finally:
            if request.loras:
                pipeline.unload_lora_weights()

    def _call(
        self, pipeline: Any, request: GenerationRequest, seed: int, seen: list[Image.Image]
    ) -> np.ndarray[Any, Any]:
        options: dict[str, Any] = {"image": seen, "width": WIDTH, "height": HEIGHT}
        if request.function is not Function.TEXT_TO_IMAGE:
            options |= {"image": source_image(), "control_image": seen, "strength": request.denoising_strength}
        if request.function is Function.INPAINT:
            options["mask_image"] = mask()
        return self._oracle.run(
            pipeline,
            request,
            seed,
            controlnet_conditioning_scale=[choice.scale for choice in request.controls],
            control_guidance_start=[choice.start for choice in request.controls],
            control_guidance_end=[choice.end for choice in request.controls],
            **options,
        )

    def _seen(self, choice: ControlChoice) -> Image.Image:
        if choice.image is None:
            return source_image()
        return next(image for image in DRAWINGS if png(image) == choice.image)

    def _net(self, path: str) -> Any:
        if path not in self._nets:
            self._nets[path] = diffusers.ControlNetModel.from_pretrained(self._model_dir / path)
        return self._nets[path]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controlled")
    (folder / "base_model").symlink_to(BASE_MODEL)
    unet_config = json.loads((BASE_MODEL / "unet" / "config.json").read_text())
    for number in (0, 1):
        save_folder(random_controlnet(unet_config, number), folder / f"controlnet-{number}")
    return folder


@pytest.fixture(scope="module")
def loop(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineLoop]:
    settings = Settings(
        model_dir=model_dir,
        runtime_dir=tmp_path_factory.mktemp("oracle"),
        dtype="float32",
        close_safety=True,
        store="",
    )
    engine = EagerEngine(load_components(settings))
    attention = lora_files.random_weights(
        engine.lora_targets, 4, 3, lambda path: path.startswith("unet.") and lora_files.is_attention(path)
    )
    lora_files.save(model_dir / LORA, lora_files.kohya(attention))
    made = EngineLoop(lambda: engine, settings, name="sd_controlnet")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def oracle(model_dir: Path) -> ControlOracle:
    return ControlOracle(model_dir)


def all_drawn(loop: EngineLoop, requests: list[GenerationRequest]) -> list[list[np.ndarray[Any, Any]]]:
    jobs = [loop.submit(request) for request in requests]
    for job in jobs:
        loop.wait([job], WITHIN)
    return [[pixels(image) for image in result_of(job).images] for job in jobs]


def test_controlnets_and_functions(loop: EngineLoop, oracle: ControlOracle) -> None:
    requests = {
        (name, function): request_for(function, controls=controls)
        for name, controls in CASES.items()
        for function in FUNCTIONS_OF.get(name, (Function.TEXT_TO_IMAGE,))
    }
    found = {}
    for (case, request), drawn in zip(requests.items(), all_drawn(loop, list(requests.values())), strict=True):
        found[case] = psnr(drawn[0], oracle.text_to_image(request))
    assert {case: decibels for case, decibels in found.items() if decibels < SAME} == {}


def test_controlnets_change_the_image(loop: EngineLoop) -> None:
    requests = [request_for(controls=controls) for controls in ((), (control(0, scale=0.0),), *STRONG)]
    plain, weightless, *controlled = (drawn[0] for drawn in all_drawn(loop, requests))
    assert psnr(plain, weightless) >= SAME
    for first, second in itertools.combinations([plain, *controlled], 2):
        assert psnr(first, second) < DIFFERENT


def test_other_schedulers_and_no_guidance(loop: EngineLoop, oracle: ControlOracle) -> None:
    requests = [
        request_for(controls=PARTLY, scheduler="Heun"),
        request_for(controls=TWO, scheduler="Euler a"),
        request_for(controls=ONE, guidance_scale=1.0),
    ]
    for request, drawn in zip(requests, all_drawn(loop, requests), strict=True):
        assert psnr(drawn[0], oracle.text_to_image(request)) >= SAME


def test_together_with_lora(loop: EngineLoop, oracle: ControlOracle) -> None:
    request = request_for(controls=TWO, loras=(LoraChoice(LORA, 0.8),))
    with_lora, without = all_drawn(loop, [request, request_for(controls=TWO)])
    assert psnr(with_lora[0], without[0]) < DIFFERENT
    assert psnr(with_lora[0], oracle.text_to_image(request)) >= SAME


def test_each_image_of_a_request_is_as_if_alone(loop: EngineLoop, oracle: ControlOracle) -> None:
    request = request_for(controls=ONE, image_num=2)
    for index, drawn in enumerate(all_drawn(loop, [request])[0]):
        assert psnr(drawn, oracle.text_to_image(request, SEED + index)) >= SAME
