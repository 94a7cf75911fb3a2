"""Which files the preprocessors need, and where they come from. Imports nothing heavy, since a command lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """A network's files, in ``folder`` of the folder of preprocessors, by the names that they have in ``repository``.

    Each entry of ``files`` is a file by its name, or by several: the first of them that is there is taken.
    ``megabytes`` is the size to expect, for people.
    """

    folder: str
    repository: str
    files: tuple[tuple[str, ...], ...]
    megabytes: int

    def missing(self, root: Path) -> list[str]:
        """Files that are not below ``root``, by their preferred names, relative to it."""
        return [
            f"{self.folder}/{names[0]}"
            for names in self.files
            if not any((root / self.folder / name).is_file() for name in names)
        ]

    def found(self, root: Path) -> list[Path]:
        """The files that count, of those below ``root``."""
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

# By preprocessor; those that are not here need none.
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
