"""The library's log within a process of a server, where nobody else has set one up."""

from __future__ import annotations

import logging


def log_to_stderr(process: str) -> None:
    """Write the library's messages to standard error, which is the server's log; once, however often it is called.

    Only the library's: others say too much. ``process`` is named in each line.
    """
    logger = logging.getLogger("triton_diffusers")
    if not logger.handlers:
        # Names of files may hold surrogates (bytes that are not UTF-8), which must not cost a line.
        stream = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(f"triton-diffusers: %(asctime)s %(levelname)s {process}: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
