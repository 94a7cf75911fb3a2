"""Evidence that image to image, inpainting, outpainting and LoRAs do what they are for, as figures and a sheet."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from training.emoji.backgrounds import BACKGROUNDS, WHITE, Background, nearest, unit_rgb
from training.emoji.captions import EVALUATION_TEMPLATE, evaluation_caption
from training.emoji.evaluate import STEPS, border, rank_of_truth, references
from training.emoji.evidence_measures import background_colour, centre, distances, overlap, silhouette, small
from training.emoji.evidence_studio import Studio, png
from training.emoji.pictures import PICTURE_SIZE, compose, to_image
from training.emoji.sheet import make_sheet
from training.emoji.subjects import Subject
from training.emoji.vae import psnr
from triton_diffusers.api.request import Expansion, Function, LoraChoice

CASES = 24
LORA_SUBJECTS = 50
SHOWN = 8
"""Cases of each function on the sheet; a LoRA shows twice as many pictures."""
REDRAWN_STRENGTH = 0.5
REDRAWN_SCALE = 0.75
REDRAWN_SHIFT = 0.2
"""As a fraction of half the side: 13 pixels towards a corner."""
MARGIN = 16
"""Pixels that outpainting adds at each side."""
CONTINUED_DISTANCE = 24.0
"""Euclidean RGB distance (0..441) up to which a new border continues the old one."""

DEFINITIONS = {
    "common": (
        "One picture for each case, seed = number of the case, no retries, drawn by the server's engine loop in single "
        "precision. Distances between pictures are Euclidean over their RGB averaged down to 32x32. A silhouette is "
        "every pixel whose colour is further than 48 (of 441) from the median of the border."
    ),
    "i2i": (
        "The input is a random subject at three quarters of its size, 13 pixels towards a corner, on a colour; the "
        "prompt names another subject and the same colour. Compared with text to image of the same prompt and seed. "
        "Subjects are ranked among all of them, each composed at the place and size of the input's subject over the "
        "colour of the result's border."
    ),
    "inpaint": (
        "The right half of a subject on a colour is repainted with another subject on another colour. Outside: PSNR of "
        "the left half with the input. Inside: the right half is compared with that of the picture that was asked for, "
        "and ranked among all subjects on the asked colour."
    ),
    "outpaint": (
        "A picture of 96x96 gets 16 pixels at each side. Colour distance: between the medians of the new border's "
        "pixels and of the input's border. Outside: PSNR of the middle with the input."
    ),
    "lora": (
        "Every fifth subject or so on white. A picture is closer to a style if the distance to its own subject's "
        "picture in the style is smaller than to the one in 3D, each the least over the scales and shifts of "
        "evaluation.json. top1: the own subject is the nearest of all in the style."
    ),
}


@dataclass(frozen=True)
class World:
    """Inputs of the evidence. Pictures are uint8 [N, 4, 128, 128], in the order of the subjects."""

    subjects: Sequence[Subject]
    pictures: torch.Tensor
    styles: Mapping[str, torch.Tensor]


@dataclass
class Findings:
    """Figures of one function, and rows of pictures with captions for the sheet."""

    figures: dict[str, Any]
    shown: list[torch.Tensor] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    def show(self, picture: torch.Tensor, caption: str) -> None:
        self.shown.append(picture)
        self.captions.append(caption)


@dataclass(frozen=True)
class Pair:
    """A case: what the input shows, and what is asked for (indices of subjects)."""

    given: int
    asked: int
    given_colour: Background
    asked_colour: Background


def pairs(count: int, subjects: int, seed: int) -> list[Pair]:
    """Random cases of two different subjects and two different colours, none of them white."""
    draw = random.Random(seed)
    coloured = [background for background in BACKGROUNDS if background is not WHITE]
    cases = []
    for _ in range(count):
        given, asked = draw.sample(range(subjects), 2)
        cases.append(Pair(given, asked, *draw.sample(coloured, 2)))
    return cases


def image_to_image(studio: Studio, world: World) -> Findings:
    """Return the input's layout stays, the subject becomes the prompt's."""
    cases = pairs(CASES, len(world.subjects), seed=1)
    scale = torch.tensor([REDRAWN_SCALE])
    inputs, shifts, wishes = [], [], []
    for number, case in enumerate(cases):
        shift = REDRAWN_SHIFT * torch.tensor([[1.0 if number % 2 else -1.0, 1.0 if number // 2 % 2 else -1.0]])
        picture = world.pictures[case.given : case.given + 1]
        inputs.append(compose(picture, unit_rgb(case.given_colour)[None], scale, shift)[0])
        shifts.append(shift)
        wishes.append({"prompt": evaluation_caption(world.subjects[case.asked], case.given_colour), "seed": number})
    from_text = studio.draw(wishes)
    redrawn = studio.draw(
        [
            {
                **wish,
                "function": Function.IMAGE_TO_IMAGE,
                "image": png(picture),
                "denoising_strength": REDRAWN_STRENGTH,
            }
            for wish, picture in zip(wishes, inputs, strict=True)
        ]
    )
    ranks, nearer = [], []
    for case, shift, picture in zip(cases, shifts, redrawn, strict=True):
        count = len(world.subjects)
        colour = (background_colour(picture) / 127.5 - 1.0).expand(count, 3)
        candidates = compose(world.pictures, colour, scale.expand(count), shift.expand(count, 2))
        found = torch.cdist(small(picture[None]), small(candidates))[0]
        ranks.append(int((found < found[case.asked]).sum()))
        nearer.append(bool(found[case.asked] < found[case.given]))
    findings = Findings(
        {
            "strength": REDRAWN_STRENGTH,
            "cases": CASES,
            **{f"i2i_{key}": value for key, value in _layout_kept(inputs, redrawn, cases).items()},
            **{f"t2i_{key}": value for key, value in _layout_kept(inputs, from_text, cases).items()},
            "nearer_to_the_prompt_than_to_the_input": _share(nearer),
            "subject_top1": _share(rank == 0 for rank in ranks),
            "subject_top5": _share(rank < 5 for rank in ranks),
        }
    )
    for case, before, after in zip(cases[:SHOWN], inputs, redrawn, strict=False):
        findings.show(before, "i2i: input")
        findings.show(after, world.subjects[case.asked].name)
    return findings


def _layout_kept(inputs: Sequence[torch.Tensor], drawn: torch.Tensor, cases: Sequence[Pair]) -> dict[str, float]:
    masks = [(silhouette(before), silhouette(after)) for before, after in zip(inputs, drawn, strict=True)]
    moved = [float((centre(before) - centre(after)).norm()) for before, after in masks]
    kept = [nearest(background_colour(p)) is case.given_colour for p, case in zip(drawn, cases, strict=True)]
    return {
        "background_of_the_input": _share(kept),
        "centre_moved_pixels": round(sum(moved) / len(moved), 1),
        "silhouette_overlap": round(sum(overlap(*pair) for pair in masks) / len(masks), 3),
    }


def inpaint(studio: Studio, world: World) -> Findings:
    """Return the masked half becomes what was asked, the other stays."""
    cases = pairs(CASES, len(world.subjects), seed=2)
    half = PICTURE_SIZE // 2
    mask = torch.full((3, PICTURE_SIZE, PICTURE_SIZE), -1.0)
    mask[..., half:] = 1.0
    inputs = _composed(world, [case.given for case in cases], [case.given_colour for case in cases])
    asked = _composed(world, [case.asked for case in cases], [case.asked_colour for case in cases])
    drawn = studio.draw(
        [
            {
                "prompt": evaluation_caption(world.subjects[case.asked], case.asked_colour),
                "seed": number,
                "function": Function.INPAINT,
                "image": png(picture),
                "mask": png(mask),
                "denoising_strength": 1.0,
            }
            for number, (case, picture) in enumerate(zip(cases, inputs, strict=True))
        ]
    )
    outside = psnr(drawn[..., :half], _as_sent(inputs)[..., :half])
    ranks, nearer, right = [], [], []
    for case, before, wanted, after in zip(cases, inputs, asked, drawn, strict=True):
        everything = range(len(world.subjects))
        candidates = _composed(world, everything, [case.asked_colour] * len(world.subjects))
        found = torch.cdist(small(after[None, ..., half:]), small(candidates[..., half:]))[0]
        ranks.append(int((found < found[case.asked]).sum()))
        nearer.append(bool((after - wanted)[..., half:].norm() < (after - before)[..., half:].norm()))
        # The border on the three outer sides of the repainted half.
        right.append(nearest(border(after[..., half:].flip(2).tile(1, 1, 2)).median(0).values) is case.asked_colour)
    findings = Findings(
        {
            "cases": CASES,
            "outside_psnr_db_least": round(float(outside.min()), 1),
            "inside_nearer_to_the_asked_than_to_the_input": _share(nearer),
            "inside_background_asked": _share(right),
            "inside_subject_top1": _share(rank == 0 for rank in ranks),
            "inside_subject_top5": _share(rank < 5 for rank in ranks),
        }
    )
    for case, before, after in zip(cases[:SHOWN], inputs, drawn, strict=False):
        masked = before.clone()
        masked[..., half:] = masked[..., half:] * 0.3 + 0.3
        findings.show(masked, "inpaint: input")
        findings.show(after, f"{world.subjects[case.asked].name}, {case.asked_colour.name}")
    return findings


def outpaint(studio: Studio, world: World) -> Findings:
    """Return the new border continues the background, the middle stays."""
    cases = pairs(CASES, len(world.subjects), seed=3)
    inner = PICTURE_SIZE - 2 * MARGIN
    full = _composed(world, [case.given for case in cases], [case.given_colour for case in cases])
    inputs = torch.nn.functional.interpolate(full, (inner, inner), mode="bilinear", antialias=True)
    drawn = studio.draw(
        [
            {
                "prompt": evaluation_caption(world.subjects[case.given], case.given_colour),
                "seed": number,
                "function": Function.OUTPAINT,
                "image": png(picture),
                "width": inner,
                "height": inner,
                "expansion": Expansion(left=MARGIN, right=MARGIN, up=MARGIN, down=MARGIN),
                "denoising_strength": 1.0,
            }
            for number, (case, picture) in enumerate(zip(cases, inputs, strict=True))
        ]
    )
    middle = slice(MARGIN, -MARGIN)
    kept = psnr(drawn[..., middle, middle], _as_sent(inputs))
    gaps = [
        float((border(after, MARGIN).median(0).values - background_colour(before)).norm())
        for before, after in zip(inputs, drawn, strict=True)
    ]
    findings = Findings(
        {
            "cases": CASES,
            "middle_psnr_db_least": round(float(kept.min()), 1),
            "colour_distance_mean": round(sum(gaps) / len(gaps), 1),
            "colour_distance_most": round(max(gaps), 1),
            f"continued_within_{CONTINUED_DISTANCE:.0f}": _share(gap <= CONTINUED_DISTANCE for gap in gaps),
        }
    )
    for case, before, after in zip(cases[:SHOWN], inputs, drawn, strict=False):
        canvas = torch.full_like(after, 0.8)
        canvas[:, middle, middle] = before
        findings.show(canvas, "outpaint: input")
        findings.show(after, world.subjects[case.given].name)
    return findings


def loras(studio: Studio, world: World) -> Findings:
    """Each LoRA brings its style at weight 1."""
    step = len(world.subjects) / LORA_SUBJECTS
    chosen = [int(number * step) for number in range(LORA_SUBJECTS)]
    wishes = [{"prompt": evaluation_caption(world.subjects[i], WHITE), "seed": i} for i in chosen]
    plain = studio.draw(wishes)
    rendered = references(world.pictures)
    findings = Findings({"subjects": LORA_SUBJECTS})
    _show_lora(findings, world, chosen, plain, "none")
    for style, pictures in world.styles.items():
        file = f"lora/{style}.safetensors"
        styled = studio.draw([{**wish, "loras": (LoraChoice(file, 1.0),)} for wish in wishes])
        half = studio.draw([{**wish, "loras": (LoraChoice(file, 0.5),)} for wish in wishes[: 2 * SHOWN]])
        wanted = references(pictures)

        def closer(drawn: torch.Tensor, wanted: torch.Tensor = wanted) -> float:
            return _share((distances(drawn, wanted[:, chosen]) < distances(drawn, rendered[:, chosen])).tolist())

        # All subjects are candidates: the chosen ones are put in front.
        order = chosen + [index for index in range(len(world.subjects)) if index not in set(chosen)]
        findings.figures[style] = {
            "closer_to_the_style": closer(styled),
            "closer_to_the_style_without_the_lora": closer(plain),
            "top1": _share((rank_of_truth(styled, wanted[:, order]) == 0).tolist()),
        }
        _show_lora(findings, world, chosen, half, f"{style} 0.5")
        _show_lora(findings, world, chosen, styled, style)
    findings.figures["top1_in_3d_without_a_lora"] = _share((rank_of_truth(plain, rendered[:, order]) == 0).tolist())
    return findings


def _show_lora(findings: Findings, world: World, chosen: Sequence[int], drawn: torch.Tensor, name: str) -> None:
    for index, picture in zip(chosen[: 2 * SHOWN], drawn, strict=False):
        findings.show(picture, f"{name}: {world.subjects[index].name}")


def _composed(world: World, which: Sequence[int], colours: Sequence[Background]) -> torch.Tensor:
    return compose(world.pictures[list(which)], torch.stack([unit_rgb(colour) for colour in colours]))


def _as_sent(pictures: torch.Tensor) -> torch.Tensor:
    """As 8-bit pictures."""
    return ((pictures + 1.0) * 127.5).round() / 127.5 - 1.0


def _share(truths: Any) -> float:
    values = [bool(truth) for truth in truths]
    return round(sum(values) / len(values), 4)


def gather_evidence(model_dir: Path, world: World, guidance: float) -> tuple[dict[str, Any], Image.Image]:
    """Figures of the model in `model_dir` with its LoRAs, and a sheet to look at."""
    with Studio(model_dir, STEPS, guidance) as studio:
        parts = {
            "i2i": image_to_image(studio, world),
            "inpaint": inpaint(studio, world),
            "outpaint": outpaint(studio, world),
            "lora": loras(studio, world),
        }
    figures: dict[str, Any] = {
        "definitions": DEFINITIONS,
        "template": EVALUATION_TEMPLATE,
        "steps": STEPS,
        "guidance": guidance,
    }
    figures |= {name: part.figures for name, part in parts.items()}
    shown = [to_image(picture) for part in parts.values() for picture in part.shown]
    captions = [caption for part in parts.values() for caption in part.captions]
    return figures, make_sheet(shown, captions, columns=2 * SHOWN)
