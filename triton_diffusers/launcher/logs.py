"""The log of a server: everything goes to a file, and the lines that matter go to the terminal.

Triton and its model processes write some hundred lines at a start, with errors about GPUs that a CPU does not have.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

from triton_diffusers.util.notice import NOTICE
from triton_diffusers.util.state_dir import state_dir

PROGRAM = "triton-diffusers"
LOG_LEVELS = ("error", "warning", "info", "verbose")

_OUTPUT = logging.getLogger("tritonserver")
_FORMAT = f"{PROGRAM}: %(asctime)s %(levelname)s %(message)s"
_MAX_FILE_BYTES = 20_000_000
# Lines of our model processes and of Triton. Third-party code within a model process writes what it likes.
_OURS = re.compile(rf"{PROGRAM}: \S+ \S+ (?P<level>[A-Z]+) ")
_TRITON = re.compile(r"(?P<letter>[IWEF])\d{4} ")
_TRITON_LEVELS = {"W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
# Triton's complaints about a GPU. Our models are its CPU instances, whatever device PyTorch uses: it needs none.
_HARMLESS = re.compile(
    "CudaDriverHelper|CUDA driver version|DCGM|NVML|pinned (system )?memory|unable to create stream|GPU metrics"
)
# What Triton says, several times over, of a model that cannot be loaded: the launcher says it in one line.
_REPEATED = re.compile(r"Failed to create instance: |failed to load '|which has no loaded version")
_TRACEBACK = "Traceback (most recent call last)"


class OutputLevels:
    """Assign a log level to each line that a server writes, one after the other."""

    def __init__(self) -> None:
        self._last = logging.DEBUG
        self._in_traceback = False

    def of(self, line: str) -> int:
        """Return the level of the next line: INFO or above if the terminal shows it by default."""
        if (level := _own_level(line)) is not None:
            self._last, self._in_traceback = level, False
            return level
        # The traceback of an error belongs to it; other lines without a level are progress bars and tables.
        if line.startswith(_TRACEBACK):
            self._in_traceback = self._last >= logging.WARNING
        elif self._in_traceback and not line.startswith((" ", "\t")):
            self._in_traceback = False
            return self._last
        return self._last if self._in_traceback else logging.DEBUG


def _own_level(line: str) -> int | None:
    """Return the level that a line states, or None if it states none."""
    if found := _OURS.match(line):
        stated = logging.getLevelNamesMapping().get(found["level"], logging.INFO)
        return logging.INFO if stated == NOTICE else stated if stated > NOTICE else logging.DEBUG
    if found := _TRITON.match(line):
        if _HARMLESS.search(line) or _REPEATED.search(line):
            return logging.DEBUG
        return _TRITON_LEVELS.get(found["letter"], logging.DEBUG)
    return None


class ServerOutput:
    """Log the lines of one tritonserver."""

    def __init__(self) -> None:
        self._levels = OutputLevels()

    def __call__(self, line: str) -> None:
        """Log one line, without its line break."""
        _OUTPUT.log(self._levels.of(line), "%s", line)


class _Formatter(logging.Formatter):
    """Leave a server's lines as they are."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if record.name == _OUTPUT.name else super().format(record)


@contextlib.contextmanager
def logging_to(file: Path | None, level: str) -> Iterator[Path | None]:
    """Log lines of ``level`` and above to standard error, and everything to ``file``.

    ``level`` is one of ``LOG_LEVELS``. Yields the file, or None if there is none or it cannot be written, which is
    logged: a server is worth more than its log.
    """
    root = logging.getLogger()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.DEBUG if level == "verbose" else level.upper())
    handlers: list[logging.Handler] = [terminal]
    problem: OSError | None = None
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handlers.append(RotatingFileHandler(file, maxBytes=_MAX_FILE_BYTES, backupCount=1, encoding="utf-8"))
        except OSError as error:
            file, problem = None, error
    ours = [logging.getLogger(name) for name in ("triton_diffusers", _OUTPUT.name)]
    before = [(logger, logger.level) for logger in (root, *ours)]
    root.setLevel(logging.INFO)
    for logger in ours:
        logger.setLevel(logging.DEBUG)
    for handler in handlers:
        handler.setFormatter(_Formatter(_FORMAT))
        root.addHandler(handler)
    if problem is not None:
        logging.getLogger(__name__).warning("no log file is written: %s", problem)
    try:
        yield file
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        for logger, old in before:
            logger.setLevel(old)


def default_log_file(http_port: int) -> Path:
    """Return where the log of a server on ``http_port`` goes unless the operator names a file.

    The runtime directory if the operator chose one, else the user's state directory (XDG).
    """
    if runtime_dir := os.environ.get("TRITON_DIFFUSERS_RUNTIME_DIR"):
        return Path(runtime_dir).absolute() / "serve.log"
    return state_dir() / (f"serve-{http_port}.log" if http_port else "serve.log")
