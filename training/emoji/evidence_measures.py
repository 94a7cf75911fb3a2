"""Distances and silhouettes by which the evidence judges a picture. Pictures are [3, H, W] in -1..1."""

import torch
from torch.nn import functional

from training.emoji.evaluate import COMPARED_SIDE, border

SILHOUETTE_DISTANCE = 48.0
"""Euclidean RGB distance (0..441) from the background at which a pixel belongs to the subject."""


def background_colour(picture: torch.Tensor) -> torch.Tensor:
    """Return the median of the border, [3] in 0..255."""
    return border(picture).median(0).values


def silhouette(picture: torch.Tensor) -> torch.Tensor:
    """Where the subject is, bool [H, W]: pixels that are far from the background's colour."""
    pixels = (picture + 1.0) * 127.5
    distance = (pixels - background_colour(picture)[:, None, None]).square().sum(0).sqrt()
    return distance > SILHOUETTE_DISTANCE


def overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Intersection over union of two silhouettes; 0 if both are empty."""
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


def centre(mask: torch.Tensor) -> torch.Tensor:
    """Return the centre of mass of a silhouette, [2] in pixels (x, y); the middle of the picture if it is empty."""
    if not mask.any():
        return torch.tensor([mask.shape[1] / 2, mask.shape[0] / 2])
    rows, columns = mask.nonzero(as_tuple=True)
    return torch.stack([columns.float().mean(), rows.float().mean()])


def small(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures [N, 3, H, W] as they are compared: averaged down, [N, values]."""
    return functional.adaptive_avg_pool2d(pictures, COMPARED_SIDE).flatten(1)


def distances(drawn: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """From each picture [N, 3, S, S] to its own reference, the nearest jitter of `wanted` [jitters, N, values]."""
    found: torch.Tensor = (small(drawn) - wanted).square().sum(2).sqrt().amin(0)
    return found
