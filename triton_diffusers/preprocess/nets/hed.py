"""Holistically-nested edge detection (Xie and Tu, 2015) as ControlNet's author trained it, on RGB."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

# Width and number of convolutions of each stage: those of VGG-16.
_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class _Stage(nn.Module):
    def __init__(self, before: int, width: int, count: int) -> None:
        super().__init__()
        inputs = [before] + [width] * (count - 1)
        self.convs = nn.ModuleList(nn.Conv2d(channels, width, 3, padding=1) for channels in inputs)
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        return hidden


class HedNetwork(nn.Module):
    """Edge detector from RGB (1, 3, h, w) of 0 … 255 to edge probabilities (h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        before = 3
        for number, (width, count) in enumerate(_STAGES, start=1):
            self.add_module(f"block{number}", _Stage(before, width, count))
            before = width

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden, sides = image - self.norm, []
        for number in range(1, len(_STAGES) + 1):
            stage: _Stage = self.get_submodule(f"block{number}")  # type: ignore[assignment]
            hidden = stage(hidden if number == 1 else F.max_pool2d(hidden, 2))
            side = stage.projection(hidden)
            sides.append(F.interpolate(side, image.shape[2:], mode="bilinear"))
        return torch.cat(sides).mean(dim=(0, 1)).sigmoid()
