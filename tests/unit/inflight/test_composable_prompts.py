"""Prompt editing and composition, compared with diffusers' pipeline and modules."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from tests.integration.oracle import ORACLE
from tests.unit.conftest import ROOT, finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of, made_alone
from triton_diffusers.api.request import Function, GenerationRequest
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.compile.report import psnr_of
from triton_diffusers.engines import Batch
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.sampling.profiles import PROFILES
from triton_diffusers.settings import Settings

SAME, DIFFERENT = 45.0, 35.0  # dB
STEPS = 6
SIDE = 64
NEGATIVE = "a green pear"
LONG_OPTIONS = "[" + "|".join("".join(map(str, range(first, first + 99))) for first in range(1, 1001, 99)) + "]"


class Watched(FakeEngine):
    """Engine that records the rows of each call and whether it was whole."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, bool]] = []

    def predict(self, batch: Batch) -> Any:
        self.calls.append((len(batch), batch.deep is None))
        return super().predict(batch)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def image(job: Job) -> Image.Image:
    return Image.open(io.BytesIO(images_of(job)[0]))


@pytest.fixture(scope="module")
def loop(components: Components) -> Iterator[EngineLoop]:
    loop = EngineLoop(lambda: EagerEngine(components), Settings(store="", close_safety=True), name="sd_base")
    loop.start()
    yield loop
    loop.stop()


@pytest.fixture(scope="module")
def pipeline() -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(
        ROOT / "models" / "emoji" / "base_model",
        dtype=torch.float32,
        safety_checker=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def request(prompt: str, **changes: Any) -> GenerationRequest:
    fields = {
        "negative_prompt": NEGATIVE,
        "steps": STEPS,
        "guidance_scale": 6.0,
        "width": SIDE,
        "height": SIDE,
        "scheduler": "DDIM",
    }
    return request_for(prompt, **{**fields, **changes})


def draw(loop: EngineLoop, *requests: GenerationRequest) -> list[Image.Image]:
    finish(loop, *(jobs := [loop.submit(each) for each in requests]))
    return [image(job) for job in jobs]


@torch.inference_mode()
def edited(pipeline: Any, asked: GenerationRequest, texts: list[str], negatives: list[str]) -> Image.Image:
    """Generate with diffusers, replacing the embeddings between calls.

    ``texts`` has one text for each call of the UNet.
    """
    kind, overrides = ORACLE[asked.scheduler]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **overrides)

    def states(call: int) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings: tuple[torch.Tensor, torch.Tensor] = pipeline.encode_prompt(
            texts[call], "cpu", 1, True, negative_prompt=negatives[call]
        )
        return embeddings

    def change(_: Any, call: int, timestep: Any, tensors: Any) -> dict[str, torch.Tensor]:
        if call + 1 < len(texts):
            positive, negative = states(call + 1)
            return {"prompt_embeds": torch.cat([negative, positive])}
        return {}

    positive, negative = states(0)
    made = pipeline(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance_scale,
        width=asked.width,
        height=asked.height,
        generator=torch.Generator().manual_seed(asked.seed),
        callback_on_step_end=change,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    image: Image.Image = made.images[0]
    return image


@pytest.mark.parametrize(
    ("prompt", "scheduler", "texts"),
    [
        ("a [red:green:0.5] apple", "DDIM", ["a red apple"] * 3 + ["a green apple"] * 3),
        ("a [red:green:2] apple", "Euler a", ["a red apple"] * 2 + ["a green apple"] * 4),
        ("a [red|green] apple", "DPM++ 2M", ["a red apple", "a green apple"] * 3),
        # Each step of Heun makes two calls, the last one makes one.
        ("a [red:green:2] apple", "Heun", ["a red apple"] * 4 + ["a green apple"] * 7),
    ],
)
def test_edited_prompt_matches_diffusers(
    loop: EngineLoop, pipeline: Any, prompt: str, scheduler: str, texts: list[str]
) -> None:
    asked = request(prompt, scheduler=scheduler)
    (found,) = draw(loop, asked)
    assert psnr_of(found, edited(pipeline, asked, texts, [NEGATIVE] * len(texts))) > SAME
    assert psnr_of(found, edited(pipeline, asked, texts[:1] * len(texts), [NEGATIVE] * len(texts))) < DIFFERENT


def test_edited_negative_prompt_matches_diffusers(loop: EngineLoop, pipeline: Any) -> None:
    asked = request("a red apple", negative_prompt="[a green pear:a blue background:0.5]")
    negatives = ["a green pear"] * 3 + ["a blue background"] * 3
    assert psnr_of(*draw(loop, asked), edited(pipeline, asked, ["a red apple"] * 6, negatives)) > SAME


@torch.inference_mode()
def composed(pipeline: Any, asked: GenerationRequest, parts: list[tuple[str, float]]) -> Image.Image:
    """Generate with diffusers' modules: the negative prediction plus each prompt's weighted difference from it."""
    scheduler = ORACLE["DDIM"][0].from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(asked.steps)
    texts = [asked.negative_prompt, *(text for text, _ in parts)]
    states = torch.cat([pipeline.encode_prompt(text, "cpu", 1, False)[0] for text in texts])
    latents = pipeline.prepare_latents(
        1, 4, asked.height, asked.width, torch.float32, "cpu", torch.Generator().manual_seed(asked.seed)
    )
    for timestep in scheduler.timesteps:
        unconditional, *conditional = pipeline.unet(latents.repeat(len(texts), 1, 1, 1), timestep, states).sample
        guided = unconditional + asked.guidance_scale * sum(
            weight * (prediction - unconditional) for prediction, (_, weight) in zip(conditional, parts, strict=True)
        )
        latents = scheduler.step(guided[None], timestep, latents).prev_sample
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    image: Image.Image = pipeline.image_processor.postprocess(decoded)[0]
    return image


@pytest.mark.parametrize(
    ("prompt", "parts", "guidance"),
    [
        ("a red apple AND a blue background", [("a red apple", 1), ("a blue background", 1)], 4.0),
        (
            "a red apple :1.2 AND a cat :-0.4 AND a dog:0.3",
            [("a red apple", 1.2), ("a cat", -0.4), ("a dog", 0.3)],
            6.0,
        ),
        # Weights scale the distance from the negative prompt even without guidance.
        ("a red apple :0.7 AND a blue background:0.5", [("a red apple", 0.7), ("a blue background", 0.5)], 1.0),
    ],
)
def test_prompts_joined_by_and_match_diffusers_modules(
    loop: EngineLoop, pipeline: Any, prompt: str, parts: list[tuple[str, float]], guidance: float
) -> None:
    asked = request(prompt, guidance_scale=guidance)
    plain, found = draw(loop, request("a red apple", guidance_scale=guidance), asked)
    assert psnr_of(found, composed(pipeline, asked, parts)) > SAME
    assert psnr_of(found, plain) < DIFFERENT


def mixed() -> list[GenerationRequest]:
    source = png(Image.new("RGB", (64, 64), "grey"))
    return [
        request_for("plain"),
        request_for("[a|b]", steps=7, image_num=2),
        request_for("a AND b :0.5 AND [c:d:3]", steps=5, scheduler="Heun"),
        request_for("a [b:" + "long " * 40 + ":0.5]", steps=6, negative_prompt="[x:y:2]"),
        request_for("[a:b:2]", steps=8, scheduler="PNDM", profile=PROFILES["fast"]),
        request_for("a AND b", steps=8, guidance_scale=1.0, function=Function.IMAGE_TO_IMAGE, image=source),
        request_for("[a:b:1]", steps=9, function=Function.INPAINT, image=source, mask=source),
    ]


@pytest.mark.parametrize("max_batch", [1, 3, 8])
def test_mixed_prompts_do_not_affect_each_other(start_loop: StartLoop, max_batch: int) -> None:
    engine = Watched()
    loop = start_loop(engine, max_batch=max_batch)
    finish(loop, *(jobs := [loop.submit(each) for each in mixed()]))
    for job in jobs:
        assert images_of(job) == made_alone(start_loop, job.request), job.request.prompt
    assert max(rows for rows, _ in engine.calls) <= 2 * max_batch


def test_only_steps_with_a_longer_text_have_more_chunks(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for("[a:" + "b" * 100 + ":2]")))
    assert [job.samples[0].conditioning.chunks(step) for step in range(4)] == [1, 1, 2, 2]


def test_changed_text_runs_the_whole_unet(start_loop: StartLoop) -> None:
    for prompt, whole in [
        ("plain", [True, False, False, True, False, False, True, True]),
        ("[a:b:2]", [True, False, True, True, False, False, True, True]),
        ("[a|b]", [True] * 8),
    ]:
        engine = Watched()
        finish(loop := start_loop(engine), loop.submit(request_for(prompt, steps=8, profile=PROFILES["cached"])))
        assert [each for _, each in engine.calls] == whole, prompt


def test_and_disables_the_guidance_interval(start_loop: StartLoop) -> None:
    engine = Watched()
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for("a AND b", steps=5, profile=PROFILES["guidance-interval"])))
    assert [rows for rows, _ in engine.calls] == [3] * 5
    assert job.result is not None
    assert job.result.warnings == ("profile guidance-interval: with AND every step has guidance",)


@pytest.mark.parametrize(
    ("strength", "warned"), [(0.3, ["prompt: only 3 of 10 steps run, so some of its edits have no effect"]), (0.8, [])]
)
def test_edits_of_image_to_image_count_all_requested_steps(
    start_loop: StartLoop, engine: FakeEngine, strength: float, warned: list[str]
) -> None:
    """Count ``when`` in requested sampling steps, as the web UI does."""
    loop = start_loop(engine)
    source = png(Image.new("RGB", (64, 64), "grey"))
    fields = {"function": Function.IMAGE_TO_IMAGE, "image": source, "denoising_strength": strength, "steps": 10}
    jobs = [loop.submit(request_for(prompt, **fields)) for prompt in ("[a:b:0.5]", "a")]
    finish(loop, *jobs)
    edited, plain = jobs
    assert edited.result is not None
    assert list(edited.result.warnings) == warned
    assert (images_of(edited) == images_of(plain)) is bool(warned)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "[" + "|".join(map(str, range(40))) + "]",
            r"prompt: 'more than 32 different texts' .* at most 32 per request",
        ),
        (" AND ".join("abcdefghi"), r"prompt: '9 prompts joined by AND' .* at most 8"),
        (
            LONG_OPTIONS,
            r"\d+ different chunks of 75 tokens' .* at most 32",
        ),
    ],
)
def test_too_many_prompt_texts_are_an_error(
    start_loop: StartLoop, engine: FakeEngine, prompt: str, message: str
) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for(prompt, steps=50)), neighbour := loop.submit(request_for()))
    assert job.error is not None
    with pytest.raises(type(job.error), match=message):
        raise job.error
    assert images_of(neighbour)


def test_unsupported_syntax_in_negative_prompt_is_a_warning(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for(negative_prompt="x <lora:y:1> AND z")))
    assert job.result is not None
    assert list(job.result.warnings) == [
        "negative_prompt: '<lora:y:1>' has no effect here; write it in prompt",
        "negative_prompt: AND is an ordinary word here; only prompt can join prompts",
    ]


def test_alternation_differs_from_each_of_its_options(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, *(jobs := [loop.submit(request_for(prompt)) for prompt in ("[a|b]", "a", "b", "[b|a]")]))
    assert len({images_of(job) for job in jobs}) == 4
    assert np.all([job.result is not None for job in jobs])
