"""The large M-LSD (Gu et al., 2021): a MobileNetV2 and a pyramid that find line segments by their centres."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

# Expansion, width, number of blocks, stride of the first: MobileNetV2 up to its last stage of stride 16.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
_STEM = 32
_WIDTH = 64  # of the pyramid
_CHANNELS = 16
# Only these channels are used: a centre's score, and the offsets of both ends from it (x, y, x, y).
_USED = slice(7, 12)


class _ConvNorm(nn.Sequential):
    """A convolution without bias, its norm, and a ReLU6. Stride 2 pads only below and right, as TensorFlow does."""

    def __init__(self, before: int, width: int, side: int, *, stride: int = 1, groups: int = 1) -> None:
        padding = side // 2 if stride == 1 else 0
        conv = nn.Conv2d(before, width, side, stride, padding, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(width), nn.ReLU6())
        self._pads = stride != 1

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = F.pad(hidden, (0, 1, 0, 1)) if self._pads else hidden
        for module in self:
            hidden = module(hidden)
        return hidden


class _InvertedResidual(nn.Module):
    def __init__(self, before: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.conv = nn.Sequential(
            *([_ConvNorm(before, inner, 1)] if expansion > 1 else []),
            _ConvNorm(inner, inner, 3, stride=stride, groups=inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self._adds = stride == 1 and before == width

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.conv(hidden)
        return hidden + changed if self._adds else changed


class _Backbone(nn.Module):
    """The backbone, which returns the last hidden state of each stage."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_ConvNorm(4, _STEM, 3, stride=2)]
        self._ends = []
        before = _STEM
        for expansion, width, count, first_stride in _STAGES:
            for index in range(count):
                blocks.append(_InvertedResidual(before, width, first_stride if index == 0 else 1, expansion))
                before = width
            self._ends.append(len(blocks) - 1)
        self.features = nn.ModuleList(blocks)

    def forward(self, hidden: torch.Tensor) -> list[torch.Tensor]:
        states = []
        for block in self.features:
            hidden = block(hidden)
            states.append(hidden)
        return [states[end] for end in self._ends]


def _conv(before: int, width: int, side: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (side // 2)
    return nn.Sequential(
        nn.Conv2d(before, width, side, padding=padding, dilation=dilation), nn.BatchNorm2d(width), nn.ReLU()
    )


class _Joined(nn.Module):
    """The concatenation of a stage's state and the next coarser one, enlarged to it."""

    def __init__(self, stage: int, coarser: int) -> None:
        super().__init__()
        self.conv1 = _conv(coarser, _WIDTH, 1)
        self.conv2 = _conv(stage, _WIDTH, 1)

    def forward(self, stage: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        enlarged = self.conv1(coarser)
        if enlarged.shape[2:] != stage.shape[2:]:
            enlarged = F.interpolate(enlarged, stage.shape[2:], mode="bilinear", align_corners=True)
        return torch.cat((self.conv2(stage), enlarged), dim=1)


class _Narrowed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(2 * _WIDTH, 2 * _WIDTH, 3)
        self.conv2 = _conv(2 * _WIDTH, _WIDTH, 3)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        narrowed: torch.Tensor = self.conv2(hidden + self.conv1(hidden))
        return narrowed


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(_WIDTH, _WIDTH, 3, dilation=5)
        self.conv2 = _conv(_WIDTH, _WIDTH, 3)
        self.conv3 = nn.Conv2d(_WIDTH, _CHANNELS, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        channels: torch.Tensor = self.conv3(self.conv2(self.conv1(hidden)))
        return channels


class MlsdNetwork(nn.Module):
    """Detector from RGB and a plane of ones (1, 4, h, w), sides multiples of 16, to centres and ends (5, h/2, w/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Backbone()
        widths = [stage[1] for stage in _STAGES]
        self.block15, self.block16 = _Joined(widths[3], widths[4]), _Narrowed()
        self.block17, self.block18 = _Joined(widths[2], _WIDTH), _Narrowed()
        self.block19, self.block20 = _Joined(widths[1], _WIDTH), _Narrowed()
        self.block21, self.block22 = _Joined(widths[0], _WIDTH), _Narrowed()
        self.block23 = _Head()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        *stages, hidden = self.backbone(image)
        joints = (self.block15, self.block17, self.block19, self.block21)
        narrowings = (self.block16, self.block18, self.block20, self.block22)
        for stage, joined, narrowed in zip(reversed(stages), joints, narrowings, strict=True):
            hidden = narrowed(joined(stage, hidden))
        channels: torch.Tensor = self.block23(hidden)
        return channels[0, _USED]
