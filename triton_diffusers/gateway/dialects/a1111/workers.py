"""Threads for work on images: few, because each decoded image takes much memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from triton_diffusers.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

_MAX_PIXELS: Final = 16_000_000
_THREADS: Final = ThreadPoolExecutor(2, thread_name_prefix="pixels")


async def in_pixel_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function returns that decodes images, in its turn."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(function, *args, **kwargs))


def pixel_limits(settings: Settings) -> Settings:
    """Return the settings with a limit for images that the gateway itself decodes."""
    return settings.model_copy(update={"max_image_pixels": min(settings.max_image_pixels, _MAX_PIXELS)})
