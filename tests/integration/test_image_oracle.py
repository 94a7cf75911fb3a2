"""Image to image, inpainting and outpainting give the images of diffusers' own pipelines.

All requests are in flight at once, so that the functions share their UNet calls. What is pasted back after drawing is
ours alone and off here.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.integration.calls import pixels, psnr
from tests.integration.conftest import ROOT
from tests.integration.oracle import Oracle, result_of
from tests.waiting import WITHIN
from triton_diffusers.api.request import Expansion, Fill, Function, GenerationRequest
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.images.fit import expand
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.sampling.schedulers import SCHEDULERS
from triton_diffusers.settings import Settings

SAME = 40.0  # dB
SEED = 99
WIDTH, HEIGHT = 96, 64
EMOJI = ROOT / "models" / "emoji"
EXPANSION = Expansion(left=16, right=0, up=8, down=24, fill=Fill.REFLECT)
# Three steps of PNDM and LCM are cut too short by a strength of a half to say much; the others take what they get.
STEPS, STRENGTHS = 6, (0.55, 1.0)
# test_oracle covers schedulers with text to image, and inpainting covers outpainting: these two
# are tried with one scheduler of a kind: plain, with noise of its own, of second order.
OF_EVERY_SCHEDULER = (Function.IMAGE_TO_IMAGE, Function.INPAINT)
OF_EVERY_FUNCTION = ("DPM++ 2M", "Euler a", "Heun")
# The spacing of steps has nothing to do with images; one shows it.
SAMPLERS = [name for name in SCHEDULERS if not name.endswith(("Karras", "Exponential")) or name == "DPM++ 2M Karras"]


def source_image() -> Image.Image:
    """Return a red disc on a gradient."""
    ramp = np.linspace(0, 255, WIDTH, dtype=np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (HEIGHT, 1))] * 2 + [np.full((HEIGHT, WIDTH), 180, np.uint8)], 2))
    ImageDraw.Draw(image).ellipse((20, 8, 68, 56), fill=(200, 20, 20))
    return image


def mask() -> Image.Image:
    """Return the right half, with an edge that no latent's edge meets."""
    image = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).rectangle((43, 5, WIDTH, HEIGHT), fill=255)
    return image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def request_for(function: Function, **changes: Any) -> GenerationRequest:
    inputs: dict[str, Any] = {} if function is Function.TEXT_TO_IMAGE else {"image": png(source_image())}
    if function is Function.INPAINT:
        inputs["mask"] = png(mask())
    if function is Function.OUTPAINT:
        inputs["expansion"] = EXPANSION
    fields = {"steps": STEPS, "width": WIDTH, "height": HEIGHT, "seed": SEED, "guidance_scale": 5.0}
    return GenerationRequest(
        task_id="oracle",
        prompt="a red apple on a blue background",
        negative_prompt="a green pear",
        function=function,
        keep_unmasked=False,
        **{**fields, **inputs, **changes},
    )


def expected(oracle: Oracle, request: GenerationRequest, seed: int = SEED) -> np.ndarray[Any, Any]:
    if request.function is Function.TEXT_TO_IMAGE:
        return oracle.text_to_image(request, seed)
    if request.function is Function.IMAGE_TO_IMAGE:
        return oracle.redrawn(request, seed, source_image())
    if request.function is Function.INPAINT:
        return oracle.inpainted(request, seed, source_image(), mask())
    return oracle.inpainted(request, seed, *expand(source_image(), EXPANSION))


@pytest.fixture(scope="module")
def start_loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], EngineLoop]]:
    loops = []

    def start(model_dir: Path) -> EngineLoop:
        settings = Settings(
            model_dir=model_dir,
            runtime_dir=tmp_path_factory.mktemp("oracle"),
            dtype="float32",
            close_safety=True,
            max_queue=1000,
            store="",
        )
        loops.append(EngineLoop(lambda: EagerEngine(load_components(settings)), settings, name="sd_base"))
        loops[-1].start()
        return loops[-1]

    yield start
    for loop in loops:
        loop.stop()


def finished(loop: EngineLoop, job: Job) -> list[np.ndarray[Any, Any]]:
    loop.wait([job], WITHIN)
    return [pixels(image) for image in result_of(job).images]


def test_every_function_strength_and_scheduler(start_loop: Callable[[Path], EngineLoop]) -> None:
    oracle = Oracle(EMOJI / "base_model")
    loop = start_loop(EMOJI)
    jobs = [
        loop.submit(request_for(function, scheduler=scheduler, denoising_strength=strength))
        for scheduler in SAMPLERS
        for function in Function
        for strength in STRENGTHS
        if function in OF_EVERY_SCHEDULER or scheduler in OF_EVERY_FUNCTION
        if function is not Function.TEXT_TO_IMAGE or strength == 1
    ]
    wrong = []
    for job in jobs:
        found = psnr(finished(loop, job)[0], expected(oracle, job.request))
        if found < SAME:
            wrong.append((job.request.function, job.request.scheduler, job.request.denoising_strength, found))
    assert not wrong


def test_each_image_of_a_request_is_as_if_alone(start_loop: Callable[[Path], EngineLoop]) -> None:
    oracle = Oracle(EMOJI / "base_model")
    loop = start_loop(EMOJI)
    for function in (Function.IMAGE_TO_IMAGE, Function.INPAINT):
        request = request_for(function, image_num=2, guidance_scale=1.0)
        for index, found in enumerate(finished(loop, loop.submit(request))):
            assert psnr(found, expected(oracle, request, SEED + index)) >= SAME


@pytest.fixture(scope="module")
def inpainting_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the emoji model with a UNet that takes mask and masked image too; those weights are random."""
    from diffusers import UNet2DConditionModel

    model_dir = tmp_path_factory.mktemp("inpainting")
    shutil.copytree(EMOJI / "base_model", model_dir / "base_model")
    unet = UNet2DConditionModel.from_pretrained(EMOJI / "base_model" / "unet")
    config = {**unet.config, "in_channels": 9}
    wide = UNet2DConditionModel.from_config(config)
    state = unet.state_dict()
    torch.manual_seed(0)
    extra = torch.randn(state["conv_in.weight"].shape[0], 5, 3, 3) * 0.05
    state["conv_in.weight"] = torch.cat([state["conv_in.weight"].float(), extra], dim=1)
    wide.load_state_dict(state)
    wide.half().save_pretrained(model_dir / "base_model" / "unet")
    return model_dir


def test_an_inpainting_unet(start_loop: Callable[[Path], EngineLoop], inpainting_model: Path) -> None:
    oracle = Oracle(inpainting_model / "base_model")
    loop = start_loop(inpainting_model)
    for function, scheduler, strength in (
        (Function.INPAINT, "DPM++ 2M", 0.55),
        (Function.INPAINT, "DPM++ 2M", 1.0),
        (Function.INPAINT, "Euler a", 0.55),
        (Function.INPAINT, "Heun", 0.55),
        (Function.OUTPAINT, "DPM++ 2M", 1.0),
    ):
        request = request_for(function, scheduler=scheduler, denoising_strength=strength)
        found = psnr(finished(loop, loop.submit(request))[0], expected(oracle, request))
        assert found >= SAME, f"{found:.1f} dB: {scheduler}, {function}, {strength}"


def test_an_inpainting_unet_draws_without_a_mask_too(
    start_loop: Callable[[Path], EngineLoop], inpainting_model: Path
) -> None:
    loop = start_loop(inpainting_model)
    for function in (Function.TEXT_TO_IMAGE, Function.IMAGE_TO_IMAGE):
        finished(loop, loop.submit(request_for(function)))
