"""The progress bar on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TextIO

import pytest

from triton_diffusers_client import JobState, Progress
from triton_diffusers_client.display.terminal import ProgressBar

COLUMNS = 60
JOB = Progress(id="j", task_id="t", model="m", state=JobState.QUEUED, position=3, wait_seconds=20.4)


class Terminal:
    """A terminal of a given width (0: it does not know); ``text`` is what was written to it."""

    def __init__(self, columns: int) -> None:
        self.columns = columns or 80
        self._screen, program = pty.openpty()
        fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream: TextIO = os.fdopen(program, "w")

    def text(self) -> str:
        """Return all that was written; nothing more can be."""
        self.stream.close()
        read = b""
        with suppress(OSError):  # what Linux says at the end
            while part := os.read(self._screen, 2**16):
                read += part
        return read.decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._screen)


@pytest.fixture(params=[COLUMNS, 0])
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    made = Terminal(request.param)
    yield made
    made.close()


def lines(text: str) -> list[str]:
    """Return the states of the line that the bar redraws."""
    return [each for each in text.replace("\n", "\r").split("\r") if each.strip()]


def test_the_line_follows_the_job(terminal: Terminal) -> None:
    with ProgressBar(terminal.stream) as bar:
        assert bar.visible
        bar.update(JOB)
        bar.update(replace(JOB, state=JobState.RUNNING, position=None))
        bar.update(replace(JOB, state=JobState.RUNNING, step=5, steps=20))
        bar.update(replace(JOB, state=JobState.RUNNING, step=20, steps=20))
    shown = lines(terminal.text())
    found = [next((line for line in shown if line.startswith(words)), "") for words in (
        "sending [", "queued, 3 ahead, about 20 s [", "drawing [", "drawing  25%|", "decoding 100%|",
    )]  # fmt: skip
    assert all(found), shown
    assert "5/20 steps" in found[3]
    assert "█" in found[3]
    assert max(map(len, shown)) <= terminal.columns


def test_nothing_is_left_at_the_end(terminal: Terminal) -> None:
    with ProgressBar(terminal.stream) as bar:
        bar.update(JOB)
        bar.tick()
    text = terminal.text()
    assert "\n" not in text, "the bar stays in its line"
    assert text.endswith("\r")
    assert text.rstrip("\r").rpartition("\r")[2].strip() == "", "the line is empty, and the cursor at its beginning"


def test_no_terminal_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        assert not bar.visible
        bar.update(JOB)
        bar.tick()
    assert capsys.readouterr().err == ""
