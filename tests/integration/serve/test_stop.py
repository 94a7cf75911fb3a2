"""Stops of the server: whatever was running, nothing is left behind."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client

from tests.integration.conftest import RunningTriton
from tests.integration.serve.processes import family, is_gone, region_prefix, regions
from tests.integration.serve.request import generate, pid_of
from tests.integration.serve.waiting import until_logged
from tests.waiting import WITHIN, until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_lets_requests_finish_and_leaves_nothing(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor, number: int
) -> None:
    server = start("--exit-timeout=1000")
    processes, prefix = family(server), region_prefix(server)
    assert regions(prefix)
    short = crowd.submit(generate, server, "steps", seconds=3)
    until_logged(server, "steps takes 3 s")
    os.killpg(server.process.pid, number)  # as the terminal does at Ctrl-C
    assert server.process.wait(timeout=WITHIN) == 0
    assert short.result()[0] == 200
    assert all(map(is_gone, processes))
    assert not regions(prefix)
    assert not (server.runtime_dir / "endpoints.json").exists()


def test_stop_does_not_wait_for_ever(start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor) -> None:
    server = start("--exit-timeout=2")
    processes, prefix = family(server), region_prefix(server)
    endless = [crowd.submit(generate, server, model, seconds=1000) for model in ("steps", "chain")]
    stuck = crowd.submit(generate, server, "mirror", sleep=1000)
    until_logged(server, "steps takes 1000 s")
    until_logged(server, "mirror takes 1000 s")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=WITHIN) == 0
    for future in (*endless, stuck):
        # An error reply or a closed connection, but an end.
        assert future.exception(timeout=WITHIN) is not None or future.result()[0] != 200
    assert all(map(is_gone, processes))
    assert not regions(prefix)


@pytest.mark.parametrize("model", ["steps", "chain"])
def test_stop_does_not_wait_for_an_open_stream(start: Callable[..., RunningTriton], model: str) -> None:
    """Triton keeps a model for as long as a stream is open that has called it: no request is in flight by then."""
    server = start("--exit-timeout=1000")
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put(error))
        seconds = grpc_client.InferInput("seconds", [1, 1], "FP32")
        seconds.set_data_from_numpy(np.zeros((1, 1), np.float32))
        client.async_stream_infer(model, [seconds])
        assert answers.get(timeout=WITHIN) is None
        processes = family(server)
        assert server.stop() == 0
        assert all(map(is_gone, processes))


def test_second_signal_stops_at_once(start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor) -> None:
    server = start("--exit-timeout=1000")
    processes = family(server)
    endless = crowd.submit(generate, server, "steps", seconds=1000)
    until_logged(server, "steps takes 1000 s")
    server.process.send_signal(signal.SIGINT)
    until_logged(server, "stopping")
    time.sleep(1)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=WITHIN) == 128 + signal.SIGINT
    assert all(map(is_gone, processes))
    assert endless.exception(timeout=WITHIN) is not None


def test_killed_launcher_takes_everything_with_it(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    elsewhere = {"TMPDIR": str(tmp_path / "temporary")}
    server = start(env=elsewhere)
    processes, prefix = family(server), region_prefix(server)
    stuck = crowd.submit(generate, server, "mirror", sleep=5)  # a model of somebody else's ends with its call
    until_logged(server, "mirror takes 5 s")
    server.process.kill()
    until(lambda: all(map(is_gone, processes)), "tritonserver and its model processes end")
    assert stuck.exception(timeout=WITHIN) is not None or stuck.result()[0] != 200
    # The next launcher removes what a killed one left, and does not touch one that runs.
    running = start(env=elsewhere)
    assert not regions(prefix)
    third = start(env=elsewhere)
    assert regions(region_prefix(running))
    assert pid_of(running, "steps")
    assert third.stop() == running.stop() == 0
    assert list((tmp_path / "temporary").glob("triton-diffusers-*")) == []


def test_stop_while_models_load(start: Callable[..., RunningTriton], repository: Path) -> None:
    model = repository / "mirror" / "1" / "model.py"
    model.write_text("import time; print('loading for long', flush=True); time.sleep(1000)\n" + model.read_text())
    server = start("--exit-timeout=2", wait=False)
    until_logged(server, "loading for long")
    processes = family(server)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=WITHIN) == 0
    assert all(map(is_gone, processes))


def test_stop_while_a_model_is_brought_back(start: Callable[..., RunningTriton], repository: Path) -> None:
    server = start("--exit-timeout=2")
    model = repository / "mirror" / "1" / "model.py"
    model.write_text("import time; print('loading for long', flush=True); time.sleep(1000)\n" + model.read_text())
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    until_logged(server, "loading for long")
    processes = family(server)
    assert server.stop() == 0
    assert all(map(is_gone, processes))
    assert "could not be brought back" not in server.log_text()
