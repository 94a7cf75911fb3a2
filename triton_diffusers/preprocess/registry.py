"""The preprocessors by name. A preprocessor is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from triton_diffusers.util.lazy import Registry

if TYPE_CHECKING:
    import numpy as np

_NAMES = {
    "canny": "canny:Canny",
    "depth": "depth:Depth",
    "hed": "hed:Hed",
    "lineart": "lineart:Lineart",
    "mlsd": "mlsd:Mlsd",
    "none": "registry:Unchanged",
    "normal": "normal:Normal",
    "openpose": "openpose:Openpose",
    "scribble": "hed:Scribble",
    "seg": "seg:Seg",
    "tile": "registry:Unchanged",
}

# Classes that satisfy ``Preprocessor``; those in ``WEIGHTS`` take ``Networks``, the others nothing.
PREPROCESSORS = Registry(
    "preprocessor",
    {name: f"triton_diffusers.preprocess.{place}" for name, place in _NAMES.items()},
    extras=dict.fromkeys(_NAMES, "controlnet"),
)


# RGB, uint8, shape (height, width, 3).
Pixels: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"


class Preprocessor(Protocol):
    """A maker of control images. Computes in the caller's thread; called by one thread at a time."""

    def process(self, pixels: Pixels) -> Pixels:
        """Return the control image, of equal shape, in the channel order that its ControlNets expect."""


class Unchanged:
    """The image itself: for ``tile``, whose ControlNets take it directly, and ``none``."""

    def process(self, pixels: Pixels) -> Pixels:
        return pixels


@dataclass(frozen=True)
class Weights:
    """The files of a network, in ``folder`` of the preprocessors' folder, with the names they have in ``repository``.

    Each entry of ``files`` holds alternative names of one file: the first that exists is used. ``megabytes`` is the
    expected size, for display.
    """

    folder: str
    repository: str
    files: tuple[tuple[str, ...], ...]
    megabytes: int

    def missing(self, root: Path) -> list[str]:
        """Return the files that are not below ``root``, by their preferred names, relative to it."""
        return [
            f"{self.folder}/{names[0]}"
            for names in self.files
            if not any((root / self.folder / name).is_file() for name in names)
        ]

    def found(self, root: Path) -> list[Path]:
        """Return the files below ``root`` that are used."""
        present = ([root / self.folder / name for name in names] for names in self.files)
        return [path for paths in present for path in [next(filter(Path.is_file, paths), None)] if path is not None]


# A model in the layout of transformers.
_MODEL = (("config.json",), ("preprocessor_config.json",), ("model.safetensors", "pytorch_model.bin"))
_ANNOTATORS = "lllyasviel/Annotators"

HED = Weights("annotators", _ANNOTATORS, (("ControlNetHED.pth",),), 30)
LINEART = Weights("annotators", _ANNOTATORS, (("sk_model.pth",),), 17)
MLSD = Weights("annotators", _ANNOTATORS, (("mlsd_large_512_fp32.pth",),), 6)
DEPTH = Weights("depth", "Intel/dpt-hybrid-midas", _MODEL, 490)
SEGMENTATION = Weights("segmentation", "openmmlab/upernet-convnext-small", _MODEL, 328)
PEOPLE = Weights("people", "PekingU/rtdetr_r18vd_coco_o365", _MODEL, 81)
POSE = Weights("pose", "usyd-community/vitpose-base-simple", _MODEL, 344)

# By preprocessor; all others need no weights.
WEIGHTS: Mapping[str, tuple[Weights, ...]] = {
    "depth": (DEPTH,),
    "hed": (HED,),
    "lineart": (LINEART,),
    "mlsd": (MLSD,),
    "normal": (DEPTH,),
    "openpose": (PEOPLE, POSE),
    "scribble": (HED,),
    "seg": (SEGMENTATION,),
}
