"""Evidence that the ControlNets are followed: figures on held-out pairs of picture and prompt, and a sheet."""

# mypy: allow-untyped-calls

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from PIL import Image
from torch.nn import functional

from training.emoji.backgrounds import BACKGROUNDS
from training.emoji.captions import EVALUATION_TEMPLATE, evaluation_caption
from training.emoji.controlled import controlled_pipeline, generate_controlled
from training.emoji.controls import BLOCKS, CONTROLS, edges
from training.emoji.evaluate import STEPS, generate, load_pipeline
from training.emoji.pictures import from_image, to_image
from training.emoji.sheet import make_sheet
from training.emoji.subjects import Subject
from training.emoji.views import draw_views, held_out

TOLERANCES = (1, 2)
"""Pixels in either direction within which an edge counts as met."""
CASES_SEED = 1
SHOWN = 16

DEFINITIONS = {
    "pairs": (
        "One random view (place, size, mirrored or not, background) of each of the subjects that no ControlNet has "
        "seen in training, and the held-out wording of its subject and background as the prompt. The UNet and the "
        "autoencoder know these subjects, but in the middle of the picture, or off it with little noise only. One "
        "picture for each pair, seed = number of the pair, no retries; diffusers' pipelines in single precision."
    ),
    "edge_f1": (
        "Edges are those of the server's preprocessor canny at 128x128. Precision is the share of the drawn picture's "
        "edge pixels that have one of the control picture's within the tolerance in x and in y, recall the same the "
        "other way; F1 is their harmonic mean, averaged over the pairs."
    ),
    "block_distance": (
        f"Euclidean RGB distance (0..441) between the mean colours of {BLOCKS}x{BLOCKS} blocks of the drawn picture "
        "and of the one that the control picture was made from, averaged over blocks and pairs."
    ),
    "autoencoder": (
        "The same measures of the pictures themselves, encoded and decoded: as near as any drawn picture can be "
        "expected to come."
    ),
}


def edge_f1(drawn: torch.Tensor, wanted: torch.Tensor, tolerance: int) -> torch.Tensor:
    """F1 of each picture, [N]; edges [N, H, W] of 0 and 1. 0 where either has none."""
    drawn, wanted = drawn[:, None].float(), wanted[:, None].float()
    side = 2 * tolerance + 1
    precision = _met(drawn, functional.max_pool2d(wanted, side, stride=1, padding=tolerance))
    recall = _met(wanted, functional.max_pool2d(drawn, side, stride=1, padding=tolerance))
    return 2.0 * precision * recall / (precision + recall).clamp_min(1e-9)


def _met(edges: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the share of `edges` that lie on the widened `others`, [N]."""
    return (edges * others).flatten(1).sum(1) / edges.flatten(1).sum(1).clamp_min(1.0)


def block_distance(drawn: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean distance of the blocks' colours of each picture, [N]; pictures [N, 3, S, S] in -1..1."""
    gaps = functional.adaptive_avg_pool2d(drawn, BLOCKS) - functional.adaptive_avg_pool2d(wanted, BLOCKS)
    return (gaps * 127.5).square().sum(1).sqrt().flatten(1).mean(1)


def measure(drawn: torch.Tensor, wanted: torch.Tensor) -> dict[str, float]:
    """Both measures over all pairs; pictures [N, 3, S, S] in -1..1."""
    drawn_edges, wanted_edges = (edges(pictures)[:, 0] for pictures in (drawn, wanted))
    figures = {
        f"edge_f1_within_{tolerance}": round(float(edge_f1(drawn_edges, wanted_edges, tolerance).mean()), 3)
        for tolerance in TOLERANCES
    }
    return {**figures, "block_distance": round(float(block_distance(drawn, wanted).mean()), 1)}


def gather_controlnet_evidence(
    model_dir: Path, subjects: Sequence[Subject], pictures: torch.Tensor, guidance: float
) -> tuple[dict[str, Any], Image.Image]:
    """Figures of the ControlNets in `model_dir`, and a sheet. pictures: every subject's, uint8 [N, 4, 128, 128]."""
    pipeline = load_pipeline(model_dir / "base_model")
    views = draw_views(held_out(len(subjects)), 1, CASES_SEED)
    wanted = views.show(pictures)
    seeds = range(len(views))
    prompts = [
        evaluation_caption(subjects[which], BACKGROUNDS[where])
        for which, where in zip(views.subjects.tolist(), views.backgrounds.tolist(), strict=True)
    ]
    free = torch.stack([from_image(image) for image in generate(pipeline, prompts, seeds, guidance)])
    figures: dict[str, Any] = {
        "definitions": DEFINITIONS,
        "template": EVALUATION_TEMPLATE,
        "held_out": [subjects[index].name for index in views.subjects.tolist()],
        "pairs": len(views),
        "steps": STEPS,
        "guidance": guidance,
        "without": measure(free, wanted),
    }
    rows = [wanted, free]
    for control in CONTROLS:
        painted = control.paint(wanted)
        controlnet = ControlNetModel.from_pretrained(model_dir / control.folder).to(torch.float32)
        drawn = generate_controlled(controlled_pipeline(pipeline, controlnet), prompts, painted, seeds, guidance)
        figures[control.name] = measure(drawn, wanted)
        rows += [painted * 2.0 - 1.0, drawn]
    figures["autoencoder"] = measure(_reconstructed(pipeline, wanted), wanted)
    return figures, make_sheet([to_image(picture) for row in rows for picture in row[:SHOWN]], columns=SHOWN)


@torch.inference_mode()
def _reconstructed(pipeline: StableDiffusionPipeline, pictures: torch.Tensor) -> torch.Tensor:
    vae = pipeline.vae
    return torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in pictures.split(8)])
