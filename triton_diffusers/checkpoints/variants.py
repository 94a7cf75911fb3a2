"""Which of the weight files of a component's folder are to be loaded, by their names. Needs no PyTorch.

Repositories hold the same weights several times: as safetensors and as pickles, plain and in variants (``fp16``), whole
and in shards: ``model.safetensors``, ``model.fp16.safetensors``, ``model-00001-of-00002.fp16.safetensors``,
``model.safetensors.index.fp16.json``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PREFERRED = {"float16": ("fp16", None), "bfloat16": ("bf16", None)}  # of a precision; else the plain files first
_OTHERWISE = (None, "fp16", "bf16")
_NAME = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)"
    r"(?:\.(?P<before>[a-z]\w*))?(?:-\d{5}-of-\d{5})?(?:\.(?P<variant>(?!safetensors|bin)\w+))?"
    r"\.(?P<suffix>safetensors|bin)(?:\.index(?:\.(?P<index>\w+))?\.json)?"
)


@dataclass(frozen=True)
class WeightFiles:
    """The files to load: those of one variant (None: the plain ones), as safetensors or as pickles."""

    variant: str | None
    is_safetensors: bool

    def has(self, name: str) -> bool:
        """Whether the file is one of them."""
        return files_of(name) == self


def files_of(name: str) -> WeightFiles | None:
    """What a file's name says; None if it holds no weights of PyTorch."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return WeightFiles(match["index"] or match["variant"] or match["before"], match["suffix"] == "safetensors")


def choose(names: Iterable[str], dtype: str) -> WeightFiles | None:
    """Safetensors before pickles; of variants the one nearest to ``dtype``; None if there are no weights."""
    found = {files for name in names if (files := files_of(name))}
    for is_safetensors in (True, False):
        variants = {files.variant for files in found if files.is_safetensors is is_safetensors}
        for variant in (*PREFERRED.get(dtype, ()), *_OTHERWISE, *sorted(name for name in variants if name)):
            if variant in variants:
                return WeightFiles(variant, is_safetensors)
    return None
