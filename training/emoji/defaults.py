"""Compares sampling settings with the server's engine loop, to choose the defaults in `drawing.json`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch.nn import functional

from training.emoji.backgrounds import BACKGROUNDS, WHITE, Background, nearest, unit_rgb
from training.emoji.captions import EVALUATION_TEMPLATE, evaluation_caption
from training.emoji.evaluate import COMPARED_SIDE, border, references
from training.emoji.evidence_measures import background_colour, distances, small
from training.emoji.pictures import compose, to_image
from training.emoji.sheet import make_sheet
from training.emoji.subjects import Subject
from triton_diffusers.sampling.profiles import PROFILES

BASE: Mapping[str, Any] = {"guidance_scale": 3.0, "steps": 20, "scheduler": "DPM++ 2M", "profile": "exact"}
AXES: Mapping[str, Sequence[Any]] = {
    "guidance_scale": (1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    "steps": (5, 8, 10, 20, 30, 50),
    "profile": ("exact", "guidance-interval", "cached"),
}  # fmt: skip
"""Values that are compared; the other fields are those of `BASE` meanwhile."""
COMPARED_SUBJECTS = 16
SHOWN_SUBJECTS = 6
COLOURED_SEEDS = 1000
DEFINITIONS = {
    "images": f"{COMPARED_SUBJECTS} subjects, spread over the list, each on white and on a colour, from other seeds",
    "subject_right": "share of the images on white whose nearest subject (as in evaluation.json) is the right one",
    "distance": "mean distance of an image to its own reference on its background, as in evaluation.json",
    "white_border": "mean of the border of images on white; 255 is pure",
    "background_right": "share of the coloured images whose border has the colour that was named",
}


class Draws(Protocol):
    """A studio."""

    def draw(self, wishes: Sequence[dict[str, Any]]) -> torch.Tensor:
        """Return an image for each request's fields, [N, 3, H, W] in -1..1."""


@dataclass(frozen=True)
class Compared:
    """A subject on a background, and the seed of its image."""

    index: int
    subject: Subject
    background: Background
    seed: int


def compared(subjects: Sequence[Subject]) -> list[Compared]:
    """Return the prompts' subjects and backgrounds: on white first, then on the colours in turn."""
    count = min(COMPARED_SUBJECTS, len(subjects))
    indices = [number * len(subjects) // count for number in range(count)]
    colours = [background for background in BACKGROUNDS if background is not WHITE]
    on_white = [Compared(index, subjects[index], WHITE, number) for number, index in enumerate(indices)]
    coloured = [
        Compared(index, subjects[index], colours[number % len(colours)], COLOURED_SEEDS + number)
        for number, index in enumerate(indices)
    ]
    return on_white + coloured


def measures(
    drawn: torch.Tensor, wanted: Sequence[Compared], on_white: torch.Tensor, own: torch.Tensor
) -> dict[str, float]:
    """Return the figures of images [N, 3, S, S]; references of all subjects on white, and of each image itself."""
    whites = [number for number, one in enumerate(wanted) if one.background is WHITE]
    coloured = [number for number, one in enumerate(wanted) if one.background is not WHITE]
    found = torch.cdist(small(drawn[whites]).expand(len(on_white), -1, -1), on_white).amin(0).argmin(1)
    right = [int(index) == wanted[number].index for number, index in zip(whites, found, strict=True)]
    named = [nearest(background_colour(drawn[number])) is wanted[number].background for number in coloured]
    return {
        "subject_right": round(sum(right) / len(right), 4),
        "distance": round(float(distances(drawn, own).mean()), 3),
        "white_border": round(float(torch.stack([border(drawn[number]).mean() for number in whites]).mean()), 2),
        "background_right": round(sum(named) / len(named), 4),
    }


def own_references(wanted: Sequence[Compared], pictures: torch.Tensor) -> torch.Tensor:
    """Return each image's reference on its own background, [1, N, values]; pictures uint8 [N, 4, S, S]."""
    colours = torch.stack([unit_rgb(one.background) for one in wanted])
    images = compose(pictures[[one.index for one in wanted]], colours)
    return functional.adaptive_avg_pool2d(images, COMPARED_SIDE).flatten(1)[None]


def compare(
    studio: Draws, subjects: Sequence[Subject], pictures: torch.Tensor, axes: Mapping[str, Sequence[Any]] = AXES
) -> Iterator[tuple[str, dict[str, Any], Image.Image]]:
    """Yield each axis, its figures by value, and a sheet with a row for each value; pictures uint8 [N, 4, S, S]."""
    wanted = compared(subjects)
    on_white, own = references(pictures), own_references(wanted, pictures)
    shown = [number for number in range(len(wanted)) if number % (len(wanted) // 2) < SHOWN_SUBJECTS]
    known: dict[str, tuple[torch.Tensor, dict[str, float]]] = {}
    for field, values in axes.items():
        for value in values:
            setting = {**BASE, field: value}
            if str(setting) not in known:
                drawn = studio.draw([_wish(one, setting) for one in wanted])
                known[str(setting)] = drawn, measures(drawn, wanted, on_white, own)
        rows = [known[str({**BASE, field: value})] for value in values]
        captions = [f"{value} {wanted[number].subject.name}" for value in values for number in shown]
        images = [to_image(drawn[number]) for drawn, _ in rows for number in shown]
        figures = {str(value): row for value, (_, row) in zip(values, rows, strict=True)}
        yield field, figures, make_sheet(images, captions, columns=len(shown))


def header() -> dict[str, Any]:
    """Return the definitions of the figures."""
    return {"definitions": DEFINITIONS, "template": EVALUATION_TEMPLATE, "base": dict(BASE)}


def _wish(one: Compared, setting: Mapping[str, Any]) -> dict[str, Any]:
    profile = PROFILES[setting["profile"]]
    prompt = evaluation_caption(one.subject, one.background)
    return {**setting, "prompt": prompt, "seed": one.seed, "profile": profile}
