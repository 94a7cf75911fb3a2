"""The styles that the LoRAs teach: Fluent Emoji drawn flat, and as black shapes (high contrast)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from resvg_py import svg_to_bytes

from training.emoji.lora_export import Layout
from training.emoji.pictures import PICTURE_SIZE, load_pictures
from training.emoji.subjects import Subject

ALPHA = 8
"""Of the training. Other than the rank, so that a reader which forgets to scale is found out."""
BLACK, WHITE = "#000000", "#ffffff"
VARIATION_SELECTOR = "-fe0f"


@dataclass(frozen=True)
class Style:
    """One style, the layout in which its LoRA is written, and the iterations that it is trained for.

    `one_ink`: its pictures have a single colour, black, which is white on the black background. `alpha` is what the
    file says: one above the training's makes weight 1 stronger than what was trained.
    """

    name: str
    layout: Layout
    one_ink: bool
    iterations: int
    alpha: int = ALPHA

    @property
    def stage(self) -> str:
        return f"lora-{self.name}"


# A layout each, so that both that are in use are at hand for tests and demonstrations.
STYLES = (
    # As trained, one picture in six stays nearer to the 3D one, of those whose two pictures are much alike.
    Style("flat", "kohya", one_ink=False, iterations=2000, alpha=10),
    Style("high-contrast", "diffusers", one_ink=True, iterations=700),
)


class IconSet:
    """An unpacked icon package: SVG bodies by name, names by code points."""

    def __init__(self, folder: Path) -> None:
        self.icons: dict[str, Any] = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
        self.names: dict[str, str] = json.loads((folder / "chars.json").read_text(encoding="utf-8"))

    def name(self, hexcode: str) -> str | None:
        """Return the icon's name of a code point sequence, or None. Variation selectors make no difference."""
        plain = hexcode.lower().replace(VARIATION_SELECTOR, "")
        name = self.names.get(hexcode.lower()) or self.names.get(plain)
        return name if name in self.icons["icons"] else None

    def svg(self, hexcode: str, ink: str = BLACK) -> str:
        """Return the icon as a document of the pictures' size; `ink` is what `currentColor` means. Raises KeyError."""
        name = self.name(hexcode)
        if name is None:
            raise KeyError(f"no icon of {hexcode} in {self.icons['prefix']}")
        icon = self.icons["icons"][name]
        width, height = (icon.get(key, self.icons[key]) for key in ("width", "height"))
        body = icon["body"].replace("currentColor", ink)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{PICTURE_SIZE}" height="{PICTURE_SIZE}" '
            f'viewBox="0 0 {width} {height}">{body}</svg>'
        )


def style_pictures(icons: IconSet, subjects: Sequence[Subject], ink: str = BLACK) -> torch.Tensor:
    """Return the subjects' icons, premultiplied uint8 [N, 4, 128, 128]. Raises ValueError naming missing ones."""
    missing = [subject.name for subject in subjects if icons.name(subject.hexcode) is None]
    if missing:
        raise ValueError(f"no icon in {icons.icons['prefix']}: {', '.join(missing)}")
    documents = (icons.svg(subject.hexcode, ink) for subject in subjects)
    return load_pictures([BytesIO(svg_to_bytes(svg_string=svg, skip_system_fonts=True)) for svg in documents])
