"""Progress as log lines and as bars on a terminal."""

from __future__ import annotations

import io

import pytest

from triton_diffusers.compile.progress import LogProgress, RichProgress, progress_for


def test_log_progress_prints_start_and_end_of_a_stage() -> None:
    stream = io.StringIO()
    progress = LogProgress(stream)
    with progress.stage("[1/2] compiling unet") as advance:
        advance(1, 2)
    first, second = stream.getvalue().splitlines()
    assert first == "triton-diffusers: [1/2] compiling unet …"
    assert second.startswith("triton-diffusers: [1/2] compiling unet: ")
    assert second.endswith(" s")


def test_a_failed_stage_is_not_reported_as_done() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="no"), LogProgress(stream).stage("compiling"):
        raise ValueError("no")
    assert len(stream.getvalue().splitlines()) == 1


def test_rich_progress_prints_bars_and_notes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    progress = RichProgress()
    with progress.stage("[1/2] compiling unet") as advance:
        advance(1, 2)
    progress.note("[done] it is")
    said = capsys.readouterr().err
    assert "[1/2] compiling unet" in said
    assert "100%" in said
    assert "[done] it is" in said


def test_progress_uses_bars_on_a_terminal() -> None:
    assert isinstance(progress_for(lambda: False), LogProgress)
    assert isinstance(progress_for(lambda: True), RichProgress)
