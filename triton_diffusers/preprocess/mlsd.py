"""Straight lines by a network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from triton_diffusers.preprocess.nets.mlsd import MlsdNetwork
from triton_diffusers.preprocess.networks import Network, Networks, with_weights
from triton_diffusers.preprocess.registry import MLSD, Pixels
from triton_diffusers.preprocess.sizes import to_tensor, to_working_size

_MAX_LINES = 200
_MIN_SCORE = 0.1
_MIN_LENGTH = 0.1  # cells of the network's output


class Mlsd:
    """White lines on black, one pixel wide."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @torch.inference_mode()
    def process(self, pixels: Pixels) -> Pixels:
        network = self._networks.get(MLSD, _load)
        image = to_tensor(to_working_size(pixels), self._networks.device)
        # The plane of ones is scaled like the colours, as in training.
        found = network.module(F.pad(image, (0, 0, 0, 0, 0, 1), value=1.0) / 127.5 - 1)
        height, width = pixels.shape[:2]
        scale = np.array([width / found.shape[2], height / found.shape[1]] * 2)
        canvas = np.zeros_like(pixels)
        for left, top, right, bottom in (lines(found).numpy() * scale).astype(int).tolist():
            cv2.line(canvas, (left, top), (right, bottom), (255, 255, 255), 1)
        return canvas


def lines(found: torch.Tensor) -> torch.Tensor:
    """Return lines (n, 4) as x, y of both ends, in cells of the network's output ``found`` (5, rows, columns).

    A line is where a centre's score is a maximum of nine cells; at most 200, the best first.
    """
    scores = found[0].sigmoid()
    peaks = torch.where(F.max_pool2d(scores[None], 3, 1, 1)[0] == scores, scores, 0).flatten()
    best = peaks.topk(min(_MAX_LINES, len(peaks)))
    columns = found.shape[2]
    centres = torch.stack((best.indices % columns, best.indices // columns), dim=1)
    offsets = found[1:].flatten(1)[:, best.indices].T
    lengths = (offsets[:, :2] - offsets[:, 2:]).norm(dim=1)
    kept = (best.values > _MIN_SCORE) & (lengths > _MIN_LENGTH)
    return (centres.repeat(1, 2) + offsets)[kept].cpu()


def _load(folder: Path) -> Network:
    return with_weights(MlsdNetwork(), folder / "mlsd_large_512_fp32.pth")
