"""Convert traditional characters to simplified ones, which translators are trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

log = logging.getLogger(__name__)


def simplified(text: str) -> str:
    """Return Chinese text in simplified characters."""
    return _converter()(text)


@cache
def _converter() -> Callable[[str], str]:
    try:
        import opencc
    except ImportError:
        log.warning("traditional characters stay as they are; pip install 'triton-diffusers[translate]' converts them")
        return str
    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert
