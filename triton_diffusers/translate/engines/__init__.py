"""Translation engines. ``ENGINES`` maps names to classes that satisfy ``TranslationEngine``."""

from __future__ import annotations

from triton_diffusers.translate.engines.protocol import TranslationEngine
from triton_diffusers.util.lazy import Registry

__all__ = ["ENGINES", "TranslationEngine"]

ENGINES = Registry(
    "translation engine",
    {
        "ctranslate2": "triton_diffusers.translate.engines.ctranslate2:CTranslate2Engine",
        "transformers": "triton_diffusers.translate.engines.transformers:TransformersEngine",
        "csanmt": "triton_diffusers.translate.engines.csanmt:CsanmtEngine",
    },
    extras={"ctranslate2": "translate", "transformers": "translate", "csanmt": "csanmt"},
)
