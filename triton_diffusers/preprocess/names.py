"""The preprocessors by their names. Nothing of one is imported before it is used."""

from __future__ import annotations

from triton_diffusers.registry import Registry

_NAMES = {
    "canny": "canny:Canny",
    "depth": "depth:Depth",
    "hed": "hed:Hed",
    "lineart": "lineart:Lineart",
    "mlsd": "mlsd:Mlsd",
    "none": "unchanged:Unchanged",
    "normal": "normal:Normal",
    "openpose": "openpose:Openpose",
    "scribble": "scribble:Scribble",
    "seg": "seg:Seg",
    "tile": "unchanged:Unchanged",
}

# Classes that satisfy ``Preprocessor``; those in ``WEIGHTS`` are made of ``Networks``, the others of nothing.
PREPROCESSORS = Registry(
    "preprocessor",
    {name: f"triton_diffusers.preprocess.{place}" for name, place in _NAMES.items()},
    extras=dict.fromkeys(_NAMES, "controlnet"),
)
