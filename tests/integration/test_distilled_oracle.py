"""Models that take the guidance scale as an input draw what diffusers' pipelines draw, eager and compiled.

All requests are in flight at once: those of different scales, functions, LoRAs and ControlNets share their UNet calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import lora_files
from tests.controlnet_files import random_controlnet, save_folder
from tests.distilled_model import write_distilled
from tests.integration.calls import pixels, psnr
from tests.integration.conftest import ROOT
from tests.integration.oracle import result_of
from tests.integration.test_control_oracle import LORA, ControlOracle, control, request_for
from tests.waiting import WITHIN
from triton_diffusers.adapters.lora import UNET
from triton_diffusers.api.request import Function, LoraChoice
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines import Engine
from triton_diffusers.engines.compiled import load_compiled
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.graph_names import UNET_SHALLOW
from triton_diffusers.engines.graphs import GRAPHS
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.sampling.profiles import PROFILES
from triton_diffusers.settings import Settings

SAME = 40.0  # dB
SIZE = (96, 64)
REQUESTS = {
    "no guidance": request_for(scheduler="LCM", guidance_scale=1.0),
    "some": request_for(scheduler="LCM", guidance_scale=2.0),
    "much": request_for(scheduler="LCM", guidance_scale=8.0),
    "most": request_for(scheduler="DPM++ 2M", guidance_scale=13.5, image_num=2),
    "image to image": request_for(
        Function.IMAGE_TO_IMAGE, scheduler="LCM", guidance_scale=3.0, denoising_strength=0.75
    ),
    "inpaint": request_for(Function.INPAINT, scheduler="LCM", guidance_scale=9.0, denoising_strength=1.0),
    "control": request_for(scheduler="LCM", guidance_scale=4.0, controls=(control(0),)),
    "control and LoRA": request_for(
        scheduler="LCM", guidance_scale=6.0, controls=(control(0),), loras=(LoraChoice(LORA, 1.0),)
    ),
    "less guidance": request_for(scheduler="LCM", guidance_scale=8.0, profile=PROFILES["guidance-interval"]),
}
CACHED = request_for(scheduler="LCM", guidance_scale=8.0, steps=6, profile=PROFILES["cached"])


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distilled")
    write_distilled(ROOT / "models" / "emoji", folder)
    return folder


@pytest.fixture(scope="module")
def oracle(model_dir: Path) -> ControlOracle:
    return ControlOracle(model_dir, model_dir / "base_model")


@pytest.fixture(scope="module")
def jobs(
    model_dir: Path, oracle: ControlOracle, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Mapping[str, Job]]:
    """Finished jobs by engine and name."""
    settings = Settings(
        model_dir=model_dir,
        runtime_dir=tmp_path_factory.mktemp("runtime"),
        dtype="float32",
        close_safety=True,
        store="",
        fixed_sizes=(SIZE,),
    )
    components = load_components(settings)
    eager = EagerEngine(components)
    save_folder(random_controlnet(eager.family.denoiser_config, 0), model_dir / "controlnet-0")
    attention = lora_files.random_weights(
        eager.lora_targets, 4, 3, lambda path: path.startswith("unet.") and lora_files.is_attention(path)
    )
    lora_files.save(model_dir / LORA, lora_files.kohya(attention))
    folders = {name: tmp_path_factory.mktemp(name) for name in (UNET, UNET_SHALLOW)}
    for name, folder in folders.items():
        COMPILERS["openvino"]().compile(GRAPHS[name](load_components(settings)), folder, "float32")
    compiled = load_compiled(settings, LoadingGraphs("openvino", "float32", folders, {}))
    engines: Mapping[str, Engine] = {"eager": eager, "openvino": compiled}
    found = {}
    for name, engine in engines.items():
        loop = EngineLoop(lambda engine=engine: engine, settings, name="sd_controlnet")  # type: ignore[misc]
        loop.start()
        found[name] = {case: loop.submit(request) for case, request in {**REQUESTS, "cached": CACHED}.items()}
        for job in found[name].values():
            loop.wait([job], WITHIN)
        loop.stop()
    return found


def drawn(job: Job) -> list[Any]:
    return [pixels(image) for image in result_of(job).images]


@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_images_are_those_of_diffusers(
    jobs: Mapping[str, Mapping[str, Job]], oracle: ControlOracle, engine: str
) -> None:
    found = {}
    for name, request in REQUESTS.items():
        for index, image in enumerate(drawn(jobs[engine][name])):
            found[name, index] = psnr(image, oracle.text_to_image(request, request.seed_of(index)))
    assert {case: decibels for case, decibels in found.items() if decibels < SAME} == {}


def test_scales_make_different_images(jobs: Mapping[str, Mapping[str, Job]]) -> None:
    one, two, eight = (drawn(jobs["eager"][name])[0] for name in ("no guidance", "some", "much"))
    assert max(psnr(one, two), psnr(two, eight)) < SAME - 5


def test_kept_features_are_used_as_by_the_eager_engine(jobs: Mapping[str, Mapping[str, Job]]) -> None:
    (eager,), (compiled,) = (drawn(jobs[engine]["cached"]) for engine in ("eager", "openvino"))
    assert psnr(eager, compiled) >= SAME
    assert psnr(eager, drawn(jobs["eager"]["much"])[0]) < SAME


def test_guidance_that_cannot_be_left_out_or_negated_is_said(jobs: Mapping[str, Mapping[str, Job]]) -> None:
    result = result_of(jobs["eager"]["less guidance"])
    reason = "this model's guidance is part of its UNet"
    assert result.warnings == (
        f"negative_prompt: it has no effect, since {reason}",
        f"profile guidance-interval: it skips no guidance, since {reason}",
    )
