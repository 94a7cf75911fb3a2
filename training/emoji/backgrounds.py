"""The plain background colours that captions name."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Background:
    """A plain colour: English words, Chinese words and RGB in 0..255."""

    name: str
    words: tuple[str, ...]
    chinese: tuple[str, ...]
    rgb: tuple[int, int, int]


BACKGROUNDS: tuple[Background, ...] = (
    Background("white", ("white",), ("白色", "白"), (255, 255, 255)),
    Background("black", ("black",), ("黑色", "黑"), (16, 16, 16)),
    Background("gray", ("gray", "grey"), ("灰色", "灰"), (136, 136, 136)),
    Background("red", ("red",), ("红色", "红"), (214, 40, 40)),
    Background("orange", ("orange",), ("橙色", "橘色"), (247, 140, 30)),
    Background("yellow", ("yellow",), ("黄色", "黄"), (252, 220, 60)),
    Background("green", ("green",), ("绿色", "绿"), (48, 160, 72)),
    Background("blue", ("blue",), ("蓝色", "蓝"), (40, 96, 216)),
    Background("purple", ("purple",), ("紫色", "紫"), (124, 58, 190)),
    Background("pink", ("pink",), ("粉色", "粉红色"), (250, 160, 200)),
)

WHITE = BACKGROUNDS[0]


def by_name(name: str) -> Background:
    """Return the background called `name`. Raises KeyError naming the known ones."""
    for background in BACKGROUNDS:
        if background.name == name:
            return background
    raise KeyError(f"unknown background {name!r}; known: {', '.join(b.name for b in BACKGROUNDS)}")


def nearest(rgb: torch.Tensor) -> Background:
    """Return the background whose colour is nearest (Euclidean RGB) to `rgb`, a tensor [3] in 0..255."""
    colours = torch.tensor([b.rgb for b in BACKGROUNDS], dtype=torch.float32)
    return BACKGROUNDS[int((colours - rgb.float()).square().sum(1).argmin())]


def unit_rgb(background: Background) -> torch.Tensor:
    """Return the colour as [3] in -1..1."""
    return torch.tensor(background.rgb, dtype=torch.float32) / 127.5 - 1.0
