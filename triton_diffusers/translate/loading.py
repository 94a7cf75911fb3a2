"""The operator's settings to a translator."""

from __future__ import annotations

import logging

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.notice import NOTICE
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines import ENGINES, TranslationEngine
from triton_diffusers.translate.folder import FolderKind, find_folder, kind_of
from triton_diffusers.translate.translator import Translator

log = logging.getLogger(__name__)

_ENGINES = {FolderKind.MARIAN: ("ctranslate2", "transformers"), FolderKind.CSANMT: ("csanmt",)}


def load_translator(settings: Settings) -> Translator:
    """The translator of a server. Without a model that works it passes on what is not Chinese; the log says why."""
    try:
        engine: TranslationEngine | None = load_engine(settings)
    except LoadError as error:
        log.error("no translation: %s; prompts in Chinese are refused, all others are served", error)
        engine = None
    return Translator(
        engine,
        most_chars=settings.max_prompt_chars,
        most_chinese=settings.max_translate_chars,
        seconds=settings.translate_seconds,
        remembered=settings.translate_cache,
    )


def load_engine(settings: Settings) -> TranslationEngine:
    """Load the model with the engine that is set, or the first one that is installed. Raises ``LoadError``."""
    folder = find_folder(settings)
    kind = kind_of(folder)
    names = _ENGINES[kind]
    if kind is FolderKind.CSANMT and settings.translate_engine == "auto":
        raise LoadError(
            f"{folder} is a CSANMT model, of which ModelScope may run code; it is used only if"
            " TRITON_DIFFUSERS_TRANSLATE_ENGINE=csanmt says so"
        )
    if settings.translate_engine != "auto":
        if settings.translate_engine not in names:
            raise LoadError(f"{folder} is a {kind} model, which the engine {settings.translate_engine} cannot run")
        names = (settings.translate_engine,)
    for name in names:
        try:
            engine_class = ENGINES[name]
        except ImportError as error:
            if name == names[-1]:
                raise LoadError(str(error)) from error
            log.warning("%s; trying %s", error, names[-1])
            continue
        engine: TranslationEngine = engine_class.load(folder, settings)
        log.log(NOTICE, "translating with %s (%s), by %s", folder, kind, name)
        return engine
    raise AssertionError("unreachable: the last engine is returned or raises")
