"""The generator of informative drawings (Chan, Durand and Isola, 2022): convolutions around residual blocks."""

from __future__ import annotations

import torch
from torch import nn

_WIDTHS = (64, 128, 256)
_RESIDUAL_BLOCKS = 3


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        halves = [(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)) for _ in range(2)]
        self.conv_block = nn.Sequential(*halves[0], nn.ReLU(), *halves[1])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.conv_block(hidden)
        return hidden + changed


def _scaled(conv: nn.Module, width: int) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(width), nn.ReLU()]


class LineartNetwork(nn.Module):
    """Generator from RGB (1, 3, h, w) of 0 … 1, sides multiples of 4, to a drawing (h, w): 1 is paper, 0 is ink."""

    def __init__(self) -> None:
        super().__init__()
        narrow, middle, wide = _WIDTHS
        self.model0 = nn.Sequential(nn.ReflectionPad2d(3), *_scaled(nn.Conv2d(3, narrow, 7), narrow))
        self.model1 = nn.Sequential(
            *_scaled(nn.Conv2d(narrow, middle, 3, stride=2, padding=1), middle),
            *_scaled(nn.Conv2d(middle, wide, 3, stride=2, padding=1), wide),
        )
        self.model2 = nn.Sequential(*(_Residual(wide) for _ in range(_RESIDUAL_BLOCKS)))
        self.model3 = nn.Sequential(
            *_scaled(nn.ConvTranspose2d(wide, middle, 3, stride=2, padding=1, output_padding=1), middle),
            *_scaled(nn.ConvTranspose2d(middle, narrow, 3, stride=2, padding=1, output_padding=1), narrow),
        )
        self.model4 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(narrow, 1, 7), nn.Sigmoid())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = image
        for part in (self.model0, self.model1, self.model2, self.model3, self.model4):
            hidden = part(hidden)
        return hidden[0, 0]
