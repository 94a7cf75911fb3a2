"""Measures an exported pipeline: reconstruction, identity of the subjects, backgrounds and speed."""

# mypy: allow-untyped-calls

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch.nn import functional

from training.emoji.backgrounds import BACKGROUNDS, WHITE, nearest, unit_rgb
from training.emoji.captions import EVALUATION_TEMPLATE, evaluation_caption
from training.emoji.parallel import run_workers
from training.emoji.pictures import PICTURE_SIZE, compose, from_image, to_image
from training.emoji.sheet import make_sheet
from training.emoji.subjects import Subject
from training.emoji.vae import psnr

STEPS = 20
GUIDANCE = 7.0
BATCH = 16
COMPARED_SIDE = 32
COLOURED_PROMPTS = 200
COMPARED_JITTERS: tuple[tuple[float, float, float], ...] = tuple(
    (scale, right, down) for scale in (1.0, 0.94, 0.88) for right in (-0.04, 0.0, 0.04) for down in (-0.04, 0.0, 0.04)
)
METRIC = (
    "Each generated picture and each reference (every subject composed on white) is averaged down to "
    f"{COMPARED_SIDE}x{COMPARED_SIDE} RGB; the distance is the Euclidean one between these pixels, minimised over "
    f"{len(COMPARED_JITTERS)} scales and shifts of the reference (scales 1, 0.94, 0.88; shifts of 2 % of the side). "
    "One picture for each subject, seed = index of the subject, no retries; bfloat16 autocast."
)


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Return the exported pipeline in single precision, without its progress bar."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: float = GUIDANCE,
    steps: int = STEPS,
) -> list[Image.Image]:
    """One picture for each prompt; a picture depends on its own seed only."""
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + BATCH]]
        output = pipeline(
            list(prompts[start : start + BATCH]),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
        )
        pictures += output.images
    return pictures


def generate_all(
    folder: Path, prompts: Sequence[str], seeds: Sequence[int], guidance: float, workers: int
) -> torch.Tensor:
    """As `generate`, shared out among processes and in bfloat16 autocast: pictures [N, 3, 128, 128] in -1..1."""
    pictures = torch.empty(len(prompts), 3, PICTURE_SIZE, PICTURE_SIZE)
    pictures.share_memory_()
    run_workers(_generate_share, workers, workers, folder, list(prompts), list(seeds), guidance, pictures)
    return pictures


def _generate_share(
    rank: int,
    workers: int,
    folder: Path,
    prompts: list[str],
    seeds: list[int],
    guidance: float,
    pictures: torch.Tensor,
) -> None:
    torch.set_num_threads(1)
    pipeline = load_pipeline(folder)
    share = slice(rank, None, workers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = generate(pipeline, prompts[share], seeds[share], guidance)
    pictures[share] = torch.stack([from_image(image) for image in images])


def references(pictures: torch.Tensor) -> torch.Tensor:
    """Every subject on white at every compared jitter, [jitters, N, 3 * side * side]; pictures uint8 [N, 4, S, S]."""
    count = len(pictures)
    white = unit_rgb(WHITE).expand(count, 3)
    rows = []
    for scale, right, down in COMPARED_JITTERS:
        images = compose(pictures, white, torch.full((count,), scale), torch.tensor([right, down]).expand(count, 2))
        rows.append(functional.adaptive_avg_pool2d(images, COMPARED_SIDE).flatten(1))
    return torch.stack(rows)


def rank_of_truth(generated: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How many subjects are nearer than the right one, [N]; generated [N, 3, S, S], wanted from `references`."""
    small = functional.adaptive_avg_pool2d(generated, COMPARED_SIDE).flatten(1)
    distances = torch.cdist(small.expand(len(wanted), -1, -1), wanted).amin(0)
    return (distances < distances.diagonal()[:, None]).sum(1)


def border(picture: torch.Tensor, width: int = 4) -> torch.Tensor:
    """Return the border pixels of a picture [3, H, W], as [pixels, 3] in 0..255."""
    mask = torch.ones(picture.shape[1:], dtype=torch.bool)
    mask[width:-width, width:-width] = False
    return ((picture[:, mask].T + 1.0) * 127.5).round()


def evaluate(
    folder: Path, subjects: Sequence[Subject], pictures: torch.Tensor, workers: int, guidance: float
) -> tuple[dict[str, Any], Image.Image]:
    """Figures of the pipeline in `folder`, and a sheet of every subject. pictures: uint8 [N, 4, 128, 128]."""
    pipeline = load_pipeline(folder)
    figures: dict[str, Any] = {"metric": METRIC, "template": EVALUATION_TEMPLATE, "steps": STEPS, "guidance": guidance}
    figures["reconstruction_psnr_db"] = round(_reconstruction(pipeline, pictures), 2)

    prompts = [evaluation_caption(subject, WHITE) for subject in subjects]
    drawn = generate_all(folder, prompts, range(len(subjects)), guidance, workers)
    ranks = rank_of_truth(drawn, references(pictures))
    whites = torch.stack([border(picture).mean() for picture in drawn])
    figures |= {
        "subjects": len(subjects),
        "top1": round(float((ranks == 0).float().mean()), 4),
        "top5": round(float((ranks < 5).float().mean()), 4),
        "missed": [subject.name for subject, rank in zip(subjects, ranks.tolist(), strict=True) if rank],
        "white_border_mean": round(float(whites.mean()), 2),
        "white_border_at_least_250": round(float((whites >= 250).float().mean()), 4),
    }
    figures |= _backgrounds(folder, subjects, guidance, workers)
    figures["seconds_per_picture"] = _seconds(pipeline)
    figures["seconds_note"] = "one picture, single precision, eager, 20 steps with guidance, 2 shared CPU cores"
    return figures, make_sheet(
        [to_image(picture) for picture in drawn], [subject.name for subject in subjects], columns=20
    )


def _reconstruction(pipeline: StableDiffusionPipeline, pictures: torch.Tensor) -> float:
    """Mean PSNR in dB over the subjects, on cycling backgrounds."""
    colours = torch.stack([unit_rgb(BACKGROUNDS[index % len(BACKGROUNDS)]) for index in range(len(pictures))])
    images = compose(pictures, colours)
    values = []
    with torch.inference_mode():
        for part in images.split(BATCH):
            output = pipeline.vae.decode(pipeline.vae.encode(part).latent_dist.mode()).sample
            values.append(psnr(output, part))
    return float(torch.cat(values).mean())


def _backgrounds(folder: Path, subjects: Sequence[Subject], guidance: float, workers: int) -> dict[str, Any]:
    """Return the share of coloured prompts whose border median is nearest to the colour that was named."""
    draw = random.Random(0)
    wanted = [BACKGROUNDS[index % len(BACKGROUNDS)] for index in range(COLOURED_PROMPTS)]
    prompts = [evaluation_caption(draw.choice(subjects), background) for background in wanted]
    drawn = generate_all(folder, prompts, range(1000, 1000 + COLOURED_PROMPTS), guidance, workers)
    found = [nearest(border(picture).median(0).values) for picture in drawn]
    wrong = [
        f"{prompt} -> {got.name}" for prompt, got, want in zip(prompts, found, wanted, strict=True) if got is not want
    ]
    return {"background_right": 1.0 - len(wrong) / COLOURED_PROMPTS, "background_wrong": wrong}


def _seconds(pipeline: StableDiffusionPipeline) -> float:
    """Median seconds of five single pictures, after one that warms up."""
    times = []
    for seed in range(6):
        start = time.perf_counter()
        generate(pipeline, ["a red apple on a blue background"], [seed])
        times.append(time.perf_counter() - start)
    return round(sorted(times[1:])[2], 2)


def write_figures(figures: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
