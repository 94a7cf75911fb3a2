"""Triton's own ``perf_analyzer``: getting it, running it, and reading what it says.

The program is in the wheel of ``tritonclient`` 2.49.0 and in no later one. Of the two libraries that it needs beside
the system's, ``nvidia-pytriton`` brings copies under other names.

Its input data is in ``docs/perf_analyzer``, for everybody who runs the program by hand.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import ROOT

_WHEEL = "tritonclient==2.49.0"
_MEMBER = "tritonclient-2.49.0.data/data/bin/perf_analyzer"
_LIBRARIES = ("libb64.so.0d", "libcudart.so.12")
_RUN_SECONDS = 240.0
_DATA = ROOT / "docs" / "perf_analyzer"
# The models to run it on, each with its input data.
INPUT_DATA = {"sd_base": _DATA / "images.json", "ensemble": _DATA / "images.json", "translator": _DATA / "prompts.json"}


class PerfAnalyzerMissing(RuntimeError):
    """It cannot be had or does not start; the message says what to do."""


@dataclass(frozen=True)
class PerfAnalyzer:
    """The program, and where it finds its libraries."""

    program: Path
    libraries: Path

    @classmethod
    def get(cls) -> PerfAnalyzer:
        """Find it in the cache, or download it. Raises ``PerfAnalyzerMissing``."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triton-diffusers" / "perf_analyzer"
        libraries = cache / "lib"
        libraries.mkdir(parents=True, exist_ok=True)
        found = cls(cache / "perf_analyzer", libraries)
        if not found.program.exists():
            _download(found.program)
        _link_libraries(libraries)
        try:
            subprocess.run(
                [found.program, "--version"], env=found.environment, capture_output=True, check=True, text=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            said = str(getattr(error, "stderr", "") or error).strip()
            hint = "; on Debian: apt install libb64-0d" if "libb64" in said else ""
            raise PerfAnalyzerMissing(f"perf_analyzer does not start: {said}{hint}") from error
        return found

    @property
    def environment(self) -> dict[str, str]:
        """Its environment variables."""
        given = os.environ.get("LD_LIBRARY_PATH")
        return {**os.environ, "LD_LIBRARY_PATH": f"{self.libraries}{os.pathsep + given if given else ''}"}

    def run(self, model: str, address: str, *, concurrency: int, requests: int) -> dict[str, float | str]:
        """Send ``requests`` requests over gRPC, ``concurrency`` at a time; return the rate and latencies in seconds.

        Raises ``PerfAnalyzerMissing`` if it gives no figures.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.csv"
            command = [
                *(str(self.program), "-m", model, "-i", "grpc", "-u", address, "--async"),
                *("--input-data", str(INPUT_DATA[model]), "--concurrency-range", str(concurrency)),
                *("--request-count", str(requests), "-f", str(report)),
            ]
            try:
                ended = subprocess.run(
                    command, env=self.environment, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
                )
            except subprocess.TimeoutExpired as error:
                raise PerfAnalyzerMissing(f"perf_analyzer took more than {_RUN_SECONDS:.0f} s") from error
            if not report.exists():
                said = (ended.stderr or ended.stdout)[-500:].strip()
                raise PerfAnalyzerMissing(f"perf_analyzer gave no figures: {said}")
            with report.open(newline="") as rows:
                row = next(csv.DictReader(rows))
        return {
            "model": model,
            "concurrency": concurrency,
            "requests": requests,
            "requests_per_second": float(row["Inferences/Second"]),
            **{name: float(row[f"{name} latency"]) / 1e6 for name in ("p50", "p90", "p95", "p99")},
        }


def _download(program: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, _WHEEL]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        wheel = next(Path(folder).glob("*.whl"), None)
        if wheel is None:
            raise PerfAnalyzerMissing(f"the wheel {_WHEEL} cannot be downloaded: {ended.stderr.strip()[-300:]}")
        nascent = program.with_suffix(".new")
        with zipfile.ZipFile(wheel) as archive:
            nascent.write_bytes(archive.read(_MEMBER))
        nascent.chmod(0o755)
        nascent.rename(program)


def _link_libraries(folder: Path) -> None:
    """Give the copies in ``nvidia-pytriton`` the names that the loader looks for."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        return
    bundled = Path(spec.origin).parents[1] / "nvidia_pytriton.libs"
    for name in _LIBRARIES:
        stem, _, version = name.partition(".so")
        copy = next(bundled.glob(f"{stem}-*.so{version}*"), None)
        if copy is not None:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(copy)
