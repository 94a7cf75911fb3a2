"""Progress: lines for a log, bars for a terminal."""

from __future__ import annotations

import io

import pytest

from triton_diffusers.compile.progress import Bars, Lines, progress_for


def test_lines() -> None:
    stream = io.StringIO()
    progress = Lines(stream)
    with progress.stage("[1/2] compiling unet") as advance:
        advance(1, 2)
    first, second = stream.getvalue().splitlines()
    assert first == "triton-diffusers: [1/2] compiling unet …"
    assert second.startswith("triton-diffusers: [1/2] compiling unet: ")
    assert second.endswith(" s")


def test_a_stage_that_fails_is_not_said_to_be_done() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="no"), Lines(stream).stage("compiling"):
        raise ValueError("no")
    assert len(stream.getvalue().splitlines()) == 1


def test_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    progress = Bars()
    with progress.stage("[1/2] compiling unet") as advance:
        advance(1, 2)
    progress.note("[done] it is")
    said = capsys.readouterr().err
    assert "[1/2] compiling unet" in said
    assert "100%" in said
    assert "[done] it is" in said


def test_which() -> None:
    assert isinstance(progress_for(lambda: False), Lines)
    assert isinstance(progress_for(lambda: True), Bars)
