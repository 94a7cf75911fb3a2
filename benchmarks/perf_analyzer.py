"""Triton's own ``perf_analyzer``: getting it, running it, and reading what it says.

The program is in the wheel of ``tritonclient`` 2.49.0 and in no later one. Of the two libraries that it needs beside
the system's, ``nvidia-pytriton`` brings copies under other names.

A model with a sequence batcher is given sequences by ``perf_analyzer``: ids, and an end flag on each last request,
after which Triton takes no more steps of it. Ours is called like any other model (Triton itself makes the sequences),
so a relay in between hides that one entry of the model's configuration. It passes on everything else byte for byte.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from benchmarks.systems import System
from benchmarks.workload import Ask

_WHEEL = "tritonclient==2.49.0"
_MEMBER = "tritonclient-2.49.0.data/data/bin/perf_analyzer"
_LIBRARIES = ("libb64.so.0d", "libcudart.so.12")
_MODEL_CONFIG = "/inference.GRPCInferenceService/ModelConfig"
_RUN_SECONDS = 240.0


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

    def run(self, system: System, address: str, data: Path, *, concurrency: int, requests: int) -> dict[str, float]:
        """Send ``requests`` requests over gRPC, ``concurrency`` at a time; rate per second and latencies in seconds.

        Raises ``PerfAnalyzerMissing`` if it gives no figures.
        """
        report = data.with_suffix(".csv")
        report.unlink(missing_ok=True)
        command = [
            *(str(self.program), "-m", system.model, "-i", "grpc", "-u", address, "--async"),
            *("--input-data", str(data), "--concurrency-range", str(concurrency)),
            *("--request-count", str(requests), "-f", str(report)),
        ]
        try:
            ended = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise PerfAnalyzerMissing(f"perf_analyzer took more than {_RUN_SECONDS:.0f} s") from error
        if not report.exists():
            raise PerfAnalyzerMissing(f"perf_analyzer gave no figures: {(ended.stderr or ended.stdout)[-500:].strip()}")
        with report.open(newline="") as rows:
            row = next(csv.DictReader(rows))
        return {
            "concurrency": concurrency,
            "requests": requests,
            "requests_per_second": float(row["Inferences/Second"]),
            **{name: float(row[f"{name} latency"]) / 1e6 for name in ("p50", "p90", "p95", "p99")},
        }


def write_input_data(path: Path, asks: Sequence[Ask]) -> None:
    """Write requests for our model in ``perf_analyzer``'s form, with the contract's field names."""
    rows = [
        {
            "task_id": [f"bench-{ask.seed}"],
            "prompt": [ask.prompt],
            "steps": [ask.steps],
            "width": [ask.side],
            "height": [ask.side],
            "seed": [str(ask.seed)],
            "image_num": [ask.images],
            "return_images": [True],
        }
        for ask in asks
    ]
    path.write_text(json.dumps({"data": rows}))


@contextlib.contextmanager
def relay(address: str) -> Iterator[str]:
    """Pass gRPC calls on to ``address``, hiding sequence batchers in model configurations; yields its own address."""
    with grpc.insecure_channel(address, options=_UNLIMITED) as channel, ThreadPoolExecutor(32) as pool:
        server = grpc.server(pool, options=_UNLIMITED)
        server.add_generic_rpc_handlers((_Relay(channel),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(grace=None).wait()


_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class _Relay(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Handles any call with one request and one reply, as bytes."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def service(self, details: Any) -> Any:
        """See ``grpc.GenericRpcHandler``."""
        call = self._channel.unary_unary(details.method)

        def pass_on(request: bytes, context: Any) -> bytes:
            try:
                reply: bytes = call(request, timeout=_RUN_SECONDS)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise
            return _without_sequences(reply) if details.method == _MODEL_CONFIG else reply

        return grpc.unary_unary_rpc_method_handler(pass_on)


def _without_sequences(reply: bytes) -> bytes:
    config = service_pb2.ModelConfigResponse.FromString(reply)
    config.config.ClearField("sequence_batching")
    written: bytes = config.SerializeToString()
    return written


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
