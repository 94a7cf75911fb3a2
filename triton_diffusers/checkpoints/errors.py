"""Errors of loading a checkpoint."""

from __future__ import annotations


class LoadError(RuntimeError):
    """A model directory cannot be served; the message is one line with its name and the reason."""


def one_line(error: BaseException) -> str:
    """Return a library's message as one line, cut to a length for logs."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:299]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
