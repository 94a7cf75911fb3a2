"""A job's progress on a terminal."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from triton_diffusers_client.display.description import describe, phase
from triton_diffusers_client.progress import JobState, Progress

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps [{elapsed}]"
_FORMAT_WITHOUT_TOTAL = "{desc} [{elapsed}]"
_COLUMNS = 80


class ProgressBar:
    """A bar of a job's steps and time, see ``watcher.Display``; silent if ``stream`` is not a terminal."""

    wants_previews = False

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        on_terminal = stream.isatty()
        self._bar: tqdm[None] = tqdm(
            file=stream,
            # A terminal may not know its size and say 0, at which tqdm would draw nothing.
            ncols=os.get_terminal_size(stream.fileno()).columns or _COLUMNS if on_terminal else None,
            bar_format=_FORMAT_WITHOUT_TOTAL,
            desc="sending",
            leave=False,
            disable=not on_terminal,
        )

    @property
    def visible(self) -> bool:
        """True if there is a terminal to draw on."""
        return not self._bar.disable

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, progress: Progress) -> None:
        """Show the progress."""
        if not self.visible:
            return
        counts = progress.state is JobState.RUNNING and progress.steps > 0
        self._bar.set_description_str(phase(progress) if counts else describe(progress), refresh=False)
        self._bar.bar_format = _FORMAT if counts else _FORMAT_WITHOUT_TOTAL
        self._bar.total = progress.steps
        self._bar.n = progress.step
        self._bar.refresh()

    def tick(self) -> None:
        """Move the clock."""
        if self.visible:
            self._bar.refresh()
