"""The images are those of diffusers' own pipeline, for every scheduler.

Made together in one loop, so that they share their calls, and one by one by ``StableDiffusionPipeline``, with the same
weights, seeds and steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from tests.integration.calls import Calls, pixels, psnr, small
from tests.integration.conftest import ROOT, RunningTriton
from tests.integration.oracle import ORACLE, Oracle, result_of
from tests.waiting import WITHIN
from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.sampling.schedulers import SCHEDULERS
from triton_diffusers.settings import Settings

SAME = 45.0  # dB
STEPS = 4
SEED = 1234
SIDE = 64
SCALES = [1.0, 6.5]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(ROOT / "models" / "emoji" / "base_model")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, list[Job]]]:
    """Return the whole matrix, finished, by scheduler: all jobs in flight at once."""
    settings = Settings(
        model_dir=ROOT / "models" / "emoji",
        runtime_dir=tmp_path_factory.mktemp("oracle"),
        dtype="float32",
        close_safety=True,
        max_queue=1000,
        store="",
    )
    loop = EngineLoop(lambda: EagerEngine(load_components(settings)), settings, name="sd_base")
    loop.start()
    matrix = {
        name: [
            loop.submit(
                GenerationRequest(
                    task_id="matrix",
                    prompt="a red apple on a blue background",
                    negative_prompt="a green pear",
                    scheduler=name,
                    steps=STEPS,
                    width=SIDE,
                    height=SIDE,
                    guidance_scale=scale,
                    seed=SEED,
                )
            )
            for scale in SCALES
        ]
        for name in SCHEDULERS
    }
    for job in (job for row in matrix.values() for job in row):
        loop.wait([job], WITHIN)
    yield matrix
    loop.stop()


def test_every_scheduler_has_an_oracle() -> None:
    assert ORACLE.keys() == SCHEDULERS.keys()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_gives_the_pipelines_images(jobs: Mapping[str, list[Job]], oracle: Oracle, name: str) -> None:
    for job in jobs[name]:
        expected = oracle.text_to_image(job.request, SEED)
        found = psnr(pixels(result_of(job).images[0]), expected)
        assert found >= SAME, f"{found:.1f} dB at guidance {job.request.guidance_scale}"


def test_images_differ_between_schedulers_and_guidance(jobs: Mapping[str, list[Job]]) -> None:
    """Or the comparison would say little."""
    first = {name: [pixels(result_of(job).images[0]) for job in row] for name, row in jobs.items()}
    for row in first.values():
        assert psnr(row[0], row[1]) < SAME
    different = {image.tobytes() for row in first.values() for image in row}
    assert len(different) >= 0.8 * sum(len(row) for row in first.values())


@pytest.mark.parametrize(
    ("model", "scheduler", "scale", "width", "height"),
    [
        ("sd_base", "DPM++ 2M", 7.0, 128, 128),
        ("ensemble", "Euler a", 5.0, 64, 96),
        ("sd_base", "DDIM", 1.0, 96, 64),
        ("ensemble", "UniPC", 3.5, 72, 64),
    ],
)
def test_through_triton(
    triton: RunningTriton, oracle: Oracle, model: str, scheduler: str, scale: float, width: int, height: int
) -> None:
    request = GenerationRequest(
        task_id="oracle",
        prompt="蓝色背景上的红苹果",
        negative_prompt="blurry",
        scheduler=scheduler,
        guidance_scale=scale,
        steps=6,
        width=width,
        height=height,
        seed=77,
        image_num=2,
    )
    calls = Calls(triton)
    try:
        reply = calls.grpc(
            model,
            **small(
                prompt=request.prompt,
                negative_prompt="blurry",
                scheduler=scheduler,
                cfg_scale=scale,
                steps=6,
                width=width,
                height=height,
                seed="77",
                image_num=2,
            ),
        )
    finally:
        calls.close()
    assert reply["is_nsfw"] == [False, False]
    drawn = replace(request, prompt=reply["prompt"])  # the ensemble translates
    for index, image in enumerate(reply["images"]):
        assert psnr(pixels(image), oracle.text_to_image(drawn, 77 + index)) >= SAME
