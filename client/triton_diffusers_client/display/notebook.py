"""A job's progress in a notebook: one output that is updated, without widgets."""

from __future__ import annotations

import base64
from html import escape
from types import TracebackType
from typing import Any, Self

from triton_diffusers_client.display.description import describe
from triton_diffusers_client.progress import Progress


class NotebookDisplay:
    """A bar of the steps, and the preview; see ``watcher.Display``."""

    wants_previews = True

    def __init__(self) -> None:
        self._handle: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    def update(self, progress: Progress) -> None:
        """Show the progress."""
        from IPython.display import HTML, display

        output = HTML(to_html(progress))
        if self._handle is None:
            self._handle = display(output, display_id=True)
        else:
            self._handle.update(output)


def to_html(progress: Progress) -> str:
    """Return the progress as HTML. Nothing in it comes unescaped from the server."""
    text = escape(describe(progress))
    if progress.error_msg and progress.state.ended:
        text += f": {escape(progress.error_msg)}"
    bar = f'<progress value="{progress.step}" max="{progress.steps}"></progress> ' if progress.steps else ""
    image = ""
    if progress.preview is not None:
        image = f'<br><img src="data:image/jpeg;base64,{base64.b64encode(progress.preview.data).decode()}"/>'
    return f"<div>{bar}{text}{image}</div>"
