"""Load the translator that the operator's settings describe."""

from __future__ import annotations

import logging
from pathlib import Path

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines import ENGINES, TranslationEngine
from triton_diffusers.translate.folder import FolderKind, find_folder, find_own_folder, kind_of
from triton_diffusers.translate.translator import Translator
from triton_diffusers.util.notice import NOTICE

log = logging.getLogger(__name__)

_ENGINES = {FolderKind.MARIAN: ("ctranslate2", "transformers"), FolderKind.CSANMT: ("csanmt",)}


def load_translator(settings: Settings) -> Translator:
    """Return a server's translator. Without a working model it rejects Chinese, with a logged reason."""
    try:
        engine: TranslationEngine | None = load_engine(settings)
    except LoadError as error:
        engine = _stand_in(settings, error)
    return Translator(
        engine,
        max_chars=settings.max_prompt_chars,
        max_chinese_chars=settings.max_translate_chars,
        seconds=settings.translate_seconds,
        cache_size=settings.translate_cache,
    )


def load_engine(settings: Settings) -> TranslationEngine:
    """Load the model with the engine that is set, or the first installed one. Raises ``LoadError``."""
    return _load(find_folder(settings), settings)


def _stand_in(settings: Settings, error: LoadError) -> TranslationEngine | None:
    """Return the default translator if the model directory's own cannot run; None if neither can."""
    if find_own_folder(settings) is not None:
        try:
            engine = _load(settings.translator_dir, settings.model_copy(update={"translate_engine": "auto"}))
        except LoadError as second:
            log.warning("the default translator cannot be used either: %s", second)
        else:
            log.warning("%s; %s translates instead", error, settings.translator_dir)
            return engine
    log.error("no translation: %s; prompts in Chinese are refused, all others are served", error)
    return None


def _load(folder: Path, settings: Settings) -> TranslationEngine:
    kind = kind_of(folder)
    names = _ENGINES[kind]
    if settings.translate_engine != "auto":
        if settings.translate_engine not in names:
            raise LoadError(f"{folder} is a {kind} model, which the engine {settings.translate_engine} cannot run")
        names = (settings.translate_engine,)
    for name in names:
        try:
            engine_class = ENGINES[name]
        except ImportError as error:
            if name == names[-1]:
                raise LoadError(f"{folder} is a {kind} model: {error}") from error
            log.warning("%s; trying %s", error, names[-1])
            continue
        engine: TranslationEngine = engine_class.load(folder, settings)
        log.log(NOTICE, "translating with %s (%s), by %s", folder, kind, name)
        return engine
    raise AssertionError("unreachable: the last engine is returned or raises")
