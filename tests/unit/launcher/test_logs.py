"""A server's log lines: all go to the log file, the important ones to the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from triton_diffusers.launcher.logs import OutputLevels, ServerOutput, default_log_file, logging_to

HIDDEN = """\
W1129 10:15:18.563791 7894 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory pool will not be available: CUDA driver version is insufficient for CUDA runtime version"
I1129 10:15:18.564827 7894 cuda_memory_manager.cc:117] "CUDA memory pool disabled"
E1129 10:15:18.565150 7894 server.cc:241] "CudaDriverHelper has not been initialized."
triton-diffusers: 2026-11-29 10:15:22,796 INFO translator: converting model.safetensors; this is done once
Loading weights: 100%|##########| 60/60 [00:00<00:00, 4217.85it/s]
  warnings.warn("Recommended: pip install sacremoses.")
E1129 10:16:02.663023 7894 ensemble_scheduler.cc:1468] "unable to create stream for ensemble: CUDA driver version is insufficient for CUDA runtime version"
+------------------+------+
Error: Failed to initialize NVML
E1129 11:11:00.767803 20341 backend_model.cc:692] "ERROR: Failed to create instance: SettingsError: no\\n\\nAt:\\n  …"
E1129 11:11:00.767935 20341 model_lifecycle.cc:642] "failed to load 'translator' version 1: Internal: SettingsError: no"
E1129 11:11:00.799126 20341 model_repository_manager.cc:703] "Invalid argument: ensemble 'e' depends on 'sd_base' which has no loaded version. Model 'sd_base' loading failed with error: …"
W1129 10:16:02.669535 7894 metrics.cc:798] "DCGM unable to start: DCGM initialization error"
W1129 10:16:02.759898 7894 pinned_memory_manager.cc:170] "failed to allocate pinned system memory: no pinned memory pool, falling back to non-pinned system memory"
""".splitlines()  # noqa: E501
SHOWN = """\
triton-diffusers: 2026-11-29 10:15:54,845 NOTICE translator: translating with models/translator (marian), by ctranslate2
triton-diffusers: 2026-11-29 10:15:54,845 WARNING sd_base: not used: openvino-bfloat16 is damaged
triton-diffusers: 2026-11-29 10:15:54,845 ERROR sd_base: the engine loop has failed
Traceback (most recent call last):
  File "loop.py", line 1, in run
RuntimeError: CUDA out of memory
W1129 10:16:02.669535 7894 sequence_batch_scheduler.cc:798] "sequence 1 has no slot"
E1129 10:16:02.663023 7894 http_server.cc:642] "failed to start HTTP service: no threads"
""".splitlines()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep pytest's own handlers out of what is logged here."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    yield
    root.handlers = handlers


def test_noise_is_below_what_the_terminal_shows() -> None:
    levels = OutputLevels()
    assert [line for line in HIDDEN if levels.of(line) > logging.DEBUG] == []


def test_warnings_and_errors_are_shown_with_their_tracebacks() -> None:
    levels = OutputLevels()
    assert [levels.of(line) for line in SHOWN] == [
        logging.INFO, logging.WARNING, *[logging.ERROR] * 4, logging.WARNING, logging.ERROR,
    ]  # fmt: skip


def test_a_progress_bar_after_an_error_is_not_taken_for_its_traceback() -> None:
    levels = OutputLevels()
    levels.of(SHOWN[2])
    assert [levels.of(line) for line in (*SHOWN[3:6], HIDDEN[4])][-1] == logging.DEBUG


@pytest.mark.parametrize(("level", "shown"), [("error", 5), ("warning", 7), ("info", 8), ("verbose", 22)])
@pytest.mark.usefixtures("quiet")
def test_the_file_has_everything_and_the_terminal_what_was_asked_for(
    level: str, shown: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_to(tmp_path / "new" / "serve.log", level) as file:
        output = ServerOutput()
        for line in (*SHOWN, *HIDDEN):
            output(line)
        assert file is not None
        assert file.read_text().splitlines() == [*SHOWN, *HIDDEN]
    assert len(capsys.readouterr().err.splitlines()) == shown


@pytest.mark.usefixtures("quiet")
def test_a_log_file_that_cannot_be_written_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with logging_to(tmp_path / "file" / "serve.log", "info") as file:
        assert file is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "WARNING no log file is written: " in line
    assert str(tmp_path / "file") in line


def test_each_server_has_a_log_file_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRITON_DIFFUSERS_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_log_file(8000) == tmp_path / "triton-diffusers" / "serve-8000.log"
    assert default_log_file(9000) != default_log_file(8000)
    monkeypatch.setenv("TRITON_DIFFUSERS_RUNTIME_DIR", "/run/here")
    assert default_log_file(8000) == Path("/run/here/serve.log")
