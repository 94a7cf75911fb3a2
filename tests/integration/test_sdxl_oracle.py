"""SDXL gives the images of diffusers' pipelines, with all requests mixed in flight.

The model is tiny and random, of the real classes: it shows the wiring, not the quality.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import lora_files
from tests.controlnet_files import random_controlnet, save_folder
from tests.integration.calls import pixels, psnr
from tests.integration.sdxl_oracle import PROMPT, SAME, SdxlOracle, drawn, png, request_for, source
from tests.sdxl_model import SIDE, WIDTHS, write_sdxl
from triton_diffusers.api.request import ControlChoice, Function, GenerationRequest, LoraChoice
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.families.sdxl.family import StableDiffusionXL
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.sampling.profiles import PROFILES
from triton_diffusers.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")

KOHYA, PEFT, LDM = (
    LoraChoice(f"lora/{name}.safetensors", weight) for name, weight in (("kohya", 0.75), ("peft", -0.5), ("ldm", 1.0))
)
CONTROLS = tuple(
    ControlChoice(path=f"controlnet-{number}", image=png(source()), scale=scale)
    for number, scale in ((0, 1.0), (1, 0.6))
)

REQUESTS: Mapping[str, GenerationRequest] = {
    "plain": request_for(),
    "no negative prompt": request_for(negative_prompt="", steps=6, seed=1),
    "no guidance": request_for(guidance_scale=1.0, steps=3, seed=2),
    "another sampler": request_for(prompt="a cat", scheduler="DPM++ 2M Karras", seed=3, guidance_scale=7.5),
    "a sampler with noise": request_for(scheduler="Euler a", seed=4),
    "second order": request_for(scheduler="Heun", seed=5),
    "two images": request_for(scheduler="DDIM", seed=6, image_num=2),
    "another size": request_for(width=96, height=48, seed=8),
    "skipped layers": request_for(clip_skip=2, seed=9, guidance_scale=1.0),  # diffusers: not of negative prompts
    "image to image": request_for(Function.IMAGE_TO_IMAGE, denoising_strength=0.6, steps=6),
    "inpaint": request_for(Function.INPAINT, denoising_strength=0.7, steps=6),
    "inpaint all": request_for(Function.INPAINT, denoising_strength=1.0, scheduler="DDIM"),
    "two LoRAs": request_for(loras=(KOHYA, PEFT), seed=10),
    "a LoRA by original names": request_for(loras=(LDM,), seed=11),
    "a ControlNet": request_for(controls=CONTROLS[:1], seed=12),
    "two ControlNets and a LoRA": request_for(controls=CONTROLS, loras=(KOHYA,), seed=13),
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    write_sdxl(folder / "base_model")
    return folder


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> EagerEngine:
    """Return the engine, with its LoRAs and ControlNets written."""
    engine = EagerEngine(load_components(Settings(model_dir=model_dir, dtype="float32", device="cpu")))
    for number in (0, 1):
        net = random_controlnet(engine.family.denoiser_config, number, channels=(8, 16, 24))
        save_folder(net, model_dir / f"controlnet-{number}")
    random, targets = lora_files.random_weights, engine.lora_targets
    unet = random(targets, 3, 3, lambda path: path.startswith("unet."))
    files = {
        "kohya": lora_files.kohya(random(targets, 4, 1, lora_files.is_linear), 2.0, "lora_te1"),
        "peft": lora_files.peft(random(targets, 2, 2, lora_files.is_linear)),
        "ldm": lora_files.kohya_ldm({path: pair for path, pair in unet.items() if "add_embedding" not in path}, 1.5),
    }
    for name, tensors in files.items():
        lora_files.save(model_dir / "lora" / f"{name}.safetensors", tensors)
    return engine


@pytest.fixture(scope="module")
def oracle(model_dir: Path) -> SdxlOracle:
    return SdxlOracle(model_dir)


@pytest.fixture(scope="module")
def loop(model_dir: Path, engine: EagerEngine) -> Iterator[EngineLoop]:
    settings = Settings(model_dir=model_dir, store="", enlarge="off")
    loop = EngineLoop(lambda: engine, settings, name="sd_base")
    loop.start()
    yield loop
    loop.stop()


def test_images_are_those_of_diffusers(loop: EngineLoop, oracle: SdxlOracle) -> None:
    found = {
        f"{name} {number}": psnr(pixels(image), oracle.draw(REQUESTS[name], REQUESTS[name].seed_of(number)))
        for name, images in drawn(loop, REQUESTS).items()
        for number, image in enumerate(images)
    }
    assert min(found.values()) >= SAME, found


def test_images_do_not_depend_on_their_batch(loop: EngineLoop) -> None:
    names = ("plain", "no negative prompt", "image to image")
    together = drawn(loop, REQUESTS)
    for name in names:
        (alone,) = drawn(loop, {name: REQUESTS[name]})[name]
        assert psnr(pixels(alone), pixels(together[name][0])) >= SAME


def test_the_family_is_told_by_the_index(engine: EagerEngine) -> None:
    assert isinstance(engine.family, StableDiffusionXL)
    assert engine.family.defaults.side == SIDE
    assert engine.family.defaults.guidance_scale == 5.0


def test_what_is_drawn_depends_on_every_input(loop: EngineLoop) -> None:
    """Random weights could hide an input that is not used."""
    plain = REQUESTS["plain"]
    others = {
        "prompt": replace(plain, prompt="a house"),
        "negative": replace(plain, negative_prompt="a house"),
        "no negative": replace(plain, negative_prompt=""),
        "clip skip": replace(plain, clip_skip=2),
        "weight": replace(plain, prompt=PROMPT.replace("red", "(red:1.8)")),
        "seed": replace(plain, seed=8),
    }
    made = drawn(loop, {"plain": plain, **others})
    for name in others:
        assert psnr(pixels(made[name][0]), pixels(made["plain"][0])) < SAME, name


def test_weights_apply_to_each_text_encoder(loop: EngineLoop, oracle: SdxlOracle) -> None:
    """AUTOMATIC1111's rule: the weighted states of an encoder keep their mean."""
    request = request_for(prompt="a (red:1.5) apple", guidance_scale=1.0)
    states, pooled = oracle.encoded("a red apple")
    weights = torch.ones(77, 1)
    weights[2] = 1.5  # start, "a", "red"
    parts = []
    for part in torch.split(states, list(WIDTHS), dim=-1):
        weighted = part * weights
        parts.append(weighted * (part.mean() / weighted.mean()))
    options = {"prompt": None, "prompt_embeds": torch.cat(parts, -1), "pooled_prompt_embeds": pooled}
    expected = oracle.draw(replace(request, negative_prompt=""), request.seed_of(0), **options)
    assert psnr(pixels(drawn(loop, {"": request})[""][0]), expected) >= SAME


def test_long_prompts_span_chunks(loop: EngineLoop, oracle: SdxlOracle) -> None:
    """The first chunk is pooled; an empty negative prompt is zeros of the same length."""
    first, second = "a red apple", "on a blue background"
    request = request_for(prompt=f"{first} BREAK {second}", negative_prompt="")
    states, pooled = oracle.encoded(first, second)
    options = {
        "prompt": None,
        "prompt_embeds": states,
        "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": torch.zeros_like(states),
        "negative_pooled_prompt_embeds": torch.zeros_like(pooled),
    }
    expected = oracle.draw(request, request.seed_of(0), **options)
    assert psnr(pixels(drawn(loop, {"": request})[""][0]), expected) >= SAME


def test_cached_steps_run_the_outermost_layers(loop: EngineLoop) -> None:
    """Deep features of the same step would give the same image; those of an earlier one give one close to it."""
    request = request_for(steps=12, guidance_scale=2.0)
    made = drawn(loop, {"exact": request, "cached": replace(request, profile=PROFILES["cached"])})
    assert 15 < psnr(pixels(made["exact"][0]), pixels(made["cached"][0])) < 60
