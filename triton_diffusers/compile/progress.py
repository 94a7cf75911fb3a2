"""How far a build is: bars on a terminal, a line at the beginning and the end of each stage otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from triton_diffusers.compile.tasks import Advance


class Progress(Protocol):
    """Shows stages, which come one after another."""

    def stage(self, what: str) -> AbstractContextManager[Advance]:
        """A stage is going on within this; the function that it gives is told how far it is."""

    def note(self, text: str) -> None:
        """Something that should be known, on a line of its own."""


class Lines:
    """For logs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    @contextmanager
    def stage(self, what: str) -> Iterator[Advance]:
        began = time.monotonic()
        self.note(f"{what} …")
        yield lambda done, total: None
        self.note(f"{what}: {time.monotonic() - began:.1f} s")

    def note(self, text: str) -> None:
        print(f"triton-diffusers: {text}", file=self._stream, flush=True)


class Bars:
    """For terminals."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    @contextmanager
    def stage(self, what: str) -> Iterator[Advance]:
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with RichProgress(*columns, console=self._console) as bars:
            bar = bars.add_task(f"{what:<34}", total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
            bars.update(bar, completed=1, total=1)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


def progress_for(is_terminal: Callable[[], bool] = sys.stderr.isatty) -> Progress:
    """What suits where the messages go."""
    return Bars() if is_terminal() else Lines()
