"""Images with LoRAs are those of diffusers' own loader and PEFT, for every layout and weight.

An image of ours is made by the engine's own calls and diffusers' scheduler, so that nothing but LoRAs can differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tests import lora_files
from tests.integration.calls import psnr
from tests.integration.conftest import ROOT
from tests.unit.engine_calls import encode, predict
from triton_diffusers.adapters.lora import LoraLoader, LoraSet
from triton_diffusers.api.request import GenerationRequest, LoraChoice
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.prompts import PromptReader
from triton_diffusers.settings import Settings

# PEFT says so of a second adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")

SAME = 40.0  # dB
DIFFERENT = 30.0
PROMPT, NEGATIVE = "a red apple", "blue"
STEPS, SIDE, SCALE = 2, 64, 3.0

Targets = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """A LoRA file of some layout."""

    make: Callable[[Targets], lora_files.Tensors]
    metadata: Mapping[str, object] | None = None


def unet(path: str) -> bool:
    return path.startswith("unet.")


def known_by_number(path: str) -> bool:
    # diffusers takes the upsampler of a block without attention for an attention, and drops it.
    return unet(path) and path != "unet.up_blocks.0.upsamplers.0.conv"


def text(path: str) -> bool:
    return path.startswith("text_encoder.")


random = lora_files.random_weights
PEFT_CONFIG = {
    "unet": {"target_modules": ["to_q", "to_k", "to_v", "to_out.0"], "alpha_pattern": {"to_q": 6}},
    "text_encoder": {"target_modules": ["q_proj", "k_proj", "v_proj", "out_proj"], "use_rslora": True},
}
FILES = {
    "kohya": Case(lambda targets: lora_files.kohya(random(targets, 4, 1, lora_files.is_linear), alpha=2.0)),
    "locon": Case(lambda targets: lora_files.kohya(random(targets, 3, 2, unet), alpha=1.5)),
    "locon-ldm": Case(lambda targets: lora_files.kohya_ldm(random(targets, 3, 3, known_by_number), alpha=3.0)),
    "text": Case(lambda targets: lora_files.kohya(random(targets, 8, 4, text), te_prefix="lora_te1")),
    "peft": Case(lambda targets: lora_files.peft(random(targets, 4, 5, lora_files.is_linear))),
    "peft-alpha": Case(
        lambda targets: lora_files.peft(random(targets, 4, 6, lora_files.is_attention)),
        {
            f"{model}.{name}": value
            for model, config in PEFT_CONFIG.items()
            for name, value in {"r": 4, "lora_alpha": 2, **config}.items()
        },
    ),
    "older": Case(lambda targets: lora_files.older_diffusers(random(targets, 4, 7, lora_files.is_attention))),
}  # fmt: skip
CHOICES: Sequence[tuple[tuple[str, float], ...]] = [
    (("kohya", 0.75),),
    (("kohya", -0.5),),
    (("locon", 1.5),),
    (("locon-ldm", 0.75),),
    (("text", 1.5),),
    (("peft", 0.75),),
    (("peft-alpha", 1.0),),
    (("older", 1.0),),
    (("kohya", 0.75), ("locon", -0.5)),
    (("peft", 1.5), ("older", 0.0), ("text", 0.75)),
]


@pytest.fixture(scope="module")
def engine() -> EagerEngine:
    return EagerEngine(load_components(Settings(model_dir=ROOT / "models" / "emoji", dtype="float32")))


@pytest.fixture(scope="module")
def folder(engine: EagerEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory with the files."""
    place = tmp_path_factory.mktemp("models")
    for name, case in FILES.items():
        lora_files.save(place / "lora" / f"{name}.safetensors", case.make(engine.lora_targets), case.metadata)
    return place


@pytest.fixture(scope="module")
def loader(engine: EagerEngine, folder: Path) -> LoraLoader:
    return LoraLoader(Settings(model_dir=folder), engine.lora_targets)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        ROOT / "models" / "emoji" / "base_model",
        dtype=torch.float32,
        safety_checker=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


@pytest.fixture
def oracle(pipeline: Any, folder: Path) -> Iterator[Callable[[Sequence[tuple[str, float]]], np.ndarray[Any, Any]]]:
    """Return a function that makes diffusers' image with LoRAs."""

    def image(chosen: Sequence[tuple[str, float]]) -> np.ndarray[Any, Any]:
        for name, _ in chosen:
            file = folder / "lora" / f"{name}.safetensors"
            pipeline.load_lora_weights(file, adapter_name=name, unet_config=pipeline.unet.config)
        if chosen:
            pipeline.set_adapters([name for name, _ in chosen], [weight for _, weight in chosen])
        return drawn(pipeline)

    yield image
    pipeline.unload_lora_weights()


def drawn(pipeline: Any) -> np.ndarray[Any, Any]:
    made = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        width=SIDE,
        height=SIDE,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        latents=_noise(),
        output_type="np",
    )
    pixels: np.ndarray[Any, Any] = made.images[0]
    return pixels


def _noise() -> torch.Tensor:
    return torch.randn(1, 4, SIDE // 4, SIDE // 4, generator=torch.Generator().manual_seed(7))


def load(loader: LoraLoader, chosen: Sequence[tuple[str, float]]) -> LoraSet | None:
    loras = tuple(LoraChoice(f"lora/{name}.safetensors", weight) for name, weight in chosen)
    return loader.load(GenerationRequest(task_id="a-task", prompt=PROMPT, width=SIDE, height=SIDE, loras=loras))


def ours(engine: EagerEngine, sets: Sequence[LoraSet | None]) -> list[np.ndarray[Any, Any]]:
    """Images of one prompt and seed, each with its own LoRAs, made in the same calls."""
    scheduler = diffusers.DDIMScheduler.from_config(engine.family.schedule.config)
    scheduler.set_timesteps(STEPS)
    reader = PromptReader(engine.tokenizer, 1)
    tokens = [reader.read(prompt).chunks[0].tokens for prompt in (NEGATIVE, PROMPT)]
    states = torch.cat([encode(engine, tokens, 1, loras) for loras in sets])
    latents = _noise().repeat(len(sets), 1, 1, 1)
    rows = [loras for loras in sets for _ in range(2)]
    for timestep in scheduler.timesteps:
        prediction = predict(engine, latents.repeat_interleave(2, 0), timestep.expand(len(rows)), states, rows)[0]
        negative, positive = prediction[::2], prediction[1::2]
        latents = scheduler.step(negative + SCALE * (positive - negative), timestep, latents).prev_sample
    return [(engine.decode(one) / 2 + 0.5).clip(0, 1).transpose(1, 2, 0) for one in latents]


def difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return psnr(*((pixels * 255).round().astype(np.uint8) for pixels in (one, other)))


@pytest.mark.parametrize("chosen", CHOICES, ids=lambda chosen: "+".join(f"{name}*{weight}" for name, weight in chosen))
def test_an_image_is_diffusers_own(
    engine: EagerEngine, loader: LoraLoader, oracle: Any, chosen: Sequence[tuple[str, float]]
) -> None:
    plain, changed = ours(engine, [None, load(loader, chosen)])
    assert difference(plain, changed) < DIFFERENT
    assert difference(changed, oracle(chosen)) > SAME


def test_images_of_lycoris_files_are_those_of_merged_weights(
    engine: EagerEngine, loader: LoraLoader, folder: Path, pipeline: Any
) -> None:
    """One file that changes every layer, by a different kind each."""
    models = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    before = {name: copy.deepcopy(model.state_dict()) for name, model in models.items()}
    tensors, merged = lora_files.lycoris(models, seed=1)
    lora_files.save(folder / "lora" / "lycoris.safetensors", tensors)
    chosen = load(loader, [("lycoris", 1.0)])
    plain, changed, other = ours(engine, [None, chosen, load(loader, [("kohya", 0.75)])])
    try:
        for path, weight in merged.items():
            model, _, inner = path.partition(".")
            models[model].get_submodule(inner).weight.data.copy_(weight)
        expected = drawn(pipeline)
    finally:
        for name, model in models.items():
            model.load_state_dict(before[name])
    assert difference(plain, changed) < DIFFERENT
    assert difference(changed, expected) > SAME
    assert difference(plain, drawn(pipeline)) > SAME
    assert difference(other, ours(engine, [load(loader, [("kohya", 0.75)])])[0]) > SAME


def test_a_zero_weight_has_no_effect(engine: EagerEngine, loader: LoraLoader, oracle: Any) -> None:
    assert load(loader, [("locon", 0.0)]) is None
    (plain,) = ours(engine, [None])
    assert difference(plain, oracle([("locon", 0.0)])) > SAME


def test_an_image_does_not_depend_on_its_neighbours_loras(engine: EagerEngine, loader: LoraLoader) -> None:
    sets = [
        load(loader, chosen) for chosen in ([("kohya", 0.75)], [("locon", 1.5), ("text", 1.0)], [], [("older", 1.0)])
    ]
    for together, alone in zip(ours(engine, sets), (ours(engine, [loras])[0] for loras in sets), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-4)
