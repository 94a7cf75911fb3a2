"""A job's progress on a terminal."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from triton_diffusers_client.progress import JobState, Progress

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps [{elapsed}]"
_FORMAT_WITHOUT_TOTAL = "{desc} [{elapsed}]"
_COLUMNS = 80


class ProgressBar:
    """A bar of a job's steps and time; silent if ``stream`` is not a terminal."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def show(self, progress: Progress | None) -> None:
        """Redraw the bar; None: nothing is known of the job (yet), and only the clock moves."""
        if self._bar.disable:
            return
        if progress is not None:
            self._bar.set_description_str(_description(progress), refresh=False)
            self._bar.bar_format = _FORMAT if progress.steps else _FORMAT_WITHOUT_TOTAL
            self._bar.total = progress.steps
            self._bar.n = progress.step
        self._bar.refresh()


def _description(progress: Progress) -> str:
    if progress.state is not JobState.RUNNING:
        return progress.state.value
    if progress.steps and progress.step >= progress.steps:
        return "decoding"
    return "drawing"
