"""Progress of a build: bars on a terminal, otherwise a line at the start and the end of each stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from triton_diffusers.compile.tasks import Advance


class Progress(Protocol):
    """Reports stages, one after another."""

    def stage(self, title: str) -> AbstractContextManager[Advance]:
        """Return the context manager of a stage; it yields the callback for its progress."""

    def note(self, text: str) -> None:
        """Print a line of its own."""


class LogProgress:
    """Progress as log lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        began = time.monotonic()
        self.note(f"{title} …")
        yield lambda done, total: None
        self.note(f"{title}: {time.monotonic() - began:.1f} s")

    def note(self, text: str) -> None:
        print(f"triton-diffusers: {text}", file=self._stream, flush=True)


class RichProgress:
    """Progress as bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as ProgressBars

        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with ProgressBars(*columns, console=self._console) as bars:
            bar = bars.add_task(f"{title:<34}", total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
            bars.update(bar, completed=1, total=1)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


def progress_for(is_terminal: Callable[[], bool] = sys.stderr.isatty) -> Progress:
    """Return bars for a terminal, log lines otherwise."""
    return RichProgress() if is_terminal() else LogProgress()
