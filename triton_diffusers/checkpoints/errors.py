"""What is said of a checkpoint that cannot be served."""

from __future__ import annotations


class LoadError(RuntimeError):
    """A model directory cannot be served; the message is one line that says which and why."""


def one_line(error: BaseException) -> str:
    """A library's message, without its line breaks and cut to a length that a log can bear."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:299]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
