"""The display that fits the place where a program runs."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self

from triton_diffusers_client.progress import Progress


class Display(Protocol):
    """A display of a job's progress, updated in place until its context ends."""

    @property
    def wants_previews(self) -> bool:
        """True if it shows previews."""

    def update(self, progress: Progress) -> None:
        """Show the progress."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def show() -> Display:
    """Return a display in the notebook's cell, or on the terminal of stderr; elsewhere one that shows nothing."""
    if _is_notebook():
        from triton_diffusers_client.display.notebook import NotebookDisplay

        return NotebookDisplay()
    from triton_diffusers_client.display.terminal import ProgressBar

    return ProgressBar()


def _is_notebook() -> bool:
    """Return True in a kernel of Jupyter. A program without IPython is not made to import it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
