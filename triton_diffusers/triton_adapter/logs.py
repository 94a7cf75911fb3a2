"""The library's log within a model process, where nobody else has set one up."""

from __future__ import annotations

import logging


def log_to_server(model: str) -> None:
    """Have the library's messages written to standard error, which is Triton's log; once, however often it is called.

    Only the library's: others say too much. ``model`` is named in each line.
    """
    logger = logging.getLogger("triton_diffusers")
    if not logger.handlers:
        # A model process has no locale of its own, and would write what is not ASCII as escapes.
        handler = logging.StreamHandler(open(2, "w", encoding="utf-8", buffering=1, closefd=False))  # noqa: SIM115
        handler.setFormatter(logging.Formatter(f"triton-diffusers: %(asctime)s %(levelname)s {model}: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
