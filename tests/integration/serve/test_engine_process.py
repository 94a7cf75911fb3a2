"""Deaths around the engine: nobody loses an answer to that of the engine, and nobody waits for one that cannot come."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from tests.integration.calls import Calls, small
from tests.integration.conftest import RunningTriton, TritonStarter
from tests.integration.serve.processes import engines, family, is_gone, stub
from tests.integration.serve.requests_in_flight import InFlight
from tests.integration.serve.waiting import until_ready_again
from tests.waiting import WITHIN, until
from triton_diffusers_client import Client, Options

# Every Python of the server runs this at its start: a request with a link to this host kills the process that reads it.
POISON = "poison.example.org"
POISON_HOOK = f"""
import os, signal, sys

def die_of_poison(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] == {POISON!r}:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die_of_poison)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """Return a server whose UNet calls have one image: with others in the batch, sums of floats differ a little."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "sitecustomize.py").write_text(POISON_HOOK)
    starter = TritonStarter(folder)
    env = {"TRITON_DIFFUSERS_MAX_BATCH": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    try:
        yield starter(args=["--func-name=all", "--hang-timeout=10"], env=env)
    finally:
        starter.end()


@pytest.fixture
def calls(server: RunningTriton) -> Iterator[Calls]:
    opened_calls = Calls(server)
    yield opened_calls
    opened_calls.close()


@pytest.fixture(scope="module")
def undisturbed(server: RunningTriton) -> list[Sequence[bytes]]:
    """Return the images of the requests without a death."""
    with ThreadPoolExecutor(max_workers=12) as crowd:
        opened_calls = Calls(server)
        images = InFlight(opened_calls, crowd).images()
        opened_calls.close()
    return images


@pytest.mark.parametrize(
    ("number", "logged"),
    [(signal.SIGKILL, "engine 0 has died: SIGKILL"), (signal.SIGSTOP, "engine 0 has died: it has not answered for")],
)
def test_an_engine_that_dies_or_hangs_costs_nobody_an_answer(
    server: RunningTriton,
    calls: Calls,
    crowd: ThreadPoolExecutor,
    undisturbed: list[Sequence[bytes]],
    number: int,
    logged: str,
) -> None:
    models = family(server)
    in_flight = InFlight(calls, crowd)
    in_flight.wait_until_running()
    (engine,) = engines(server)
    os.kill(engine, number)
    assert in_flight.images() == undisturbed
    assert logged in server.log_text()
    assert engines(server) != [engine]
    assert family(server) == models, "tritonserver and its models have not noticed"


def test_a_request_that_kills_the_engine_fails_alone(
    server: RunningTriton, calls: Calls, crowd: ThreadPoolExecutor, undisturbed: list[Sequence[bytes]]
) -> None:
    in_flight = InFlight(calls, crowd)
    in_flight.wait_until_running()
    with pytest.raises(InferenceServerException, match="task poison was in the engine alone when it died"):
        calls.grpc(**small(task_id="poison", func_name="i2i", image_link=f"http://{POISON}/"))
    assert in_flight.images() == undisturbed
    (job,) = calls.jobs("progress", task_id="poison")
    assert (job["state"], "task poison" in job["error_msg"]) == ("failed", True)


@pytest.mark.parametrize("victim", ["sd_base", "tritonserver"])
def test_a_death_of_the_server_is_an_error_and_leaves_the_engine(
    server: RunningTriton, calls: Calls, crowd: ThreadPoolExecutor, victim: str
) -> None:
    options: Options = {"steps": 20, "seed": 7, "width": 64, "height": 64, "embed_metadata": False}
    starts = server.log_text().count("is ready after")
    with Client(server.http_url, timeout=WITHIN, retries=8) as client:
        expected = client.generate("a red apple", **options)
        in_flight = InFlight(calls, crowd, image_num=8)
        in_flight.wait_until_running()
        job = client.submit("a red apple", **options)
        running = engines(server)
        os.kill(family(server)[0] if victim == "tritonserver" else stub(server, victim), signal.SIGKILL)
        assert None not in in_flight.errors()
        until_ready_again(server, starts + 1)
        assert job.result(WITHIN).images == expected.images, "a client that tries again loses time only"
    assert engines(server) == running
    again = Calls(server)
    again.wait_until_idle()
    again.close()


@pytest.fixture
def pair(start_triton: TritonStarter) -> RunningTriton:
    """Return a server with two engines."""
    return start_triton(env={"TRITON_DIFFUSERS_DEVICE": "cpu,cpu"}, args=["--exit-timeout=1000"])


def test_two_engines_share_the_work_and_stand_in_for_each_other(pair: RunningTriton, crowd: ThreadPoolExecutor) -> None:
    calls = Calls(pair)
    seconds = {"sd_unet_seconds_total", 'sd_unet_seconds_total{worker="1"}'}
    until(lambda: seconds <= calls.metrics().keys(), "both engines are ready")
    first = InFlight(calls, crowd)
    first.wait_until_running()
    assert all(first.images())
    metrics = calls.metrics()
    assert all(metrics[name] > 0 for name in seconds)
    second = InFlight(calls, crowd)
    second.wait_until_running()
    killed, other = engines(pair)
    os.kill(killed, signal.SIGKILL)
    assert all(second.images())
    assert engines(pair)[-1] == other
    third = InFlight(calls, crowd)
    third.wait_until_running()
    processes = [*engines(pair), *family(pair)]
    assert pair.stop() == 0
    assert all(third.images()), "a stop lets requests finish"
    assert all(map(is_gone, processes))
    calls.close()


def test_a_killed_launcher_leaves_nothing(start_triton: TritonStarter, crowd: ThreadPoolExecutor) -> None:
    server = start_triton()
    calls = Calls(server)
    in_flight = InFlight(calls, crowd, image_num=8)
    in_flight.wait_until_running()
    processes = [*engines(server), *family(server)]
    server.process.kill()
    until(lambda: all(map(is_gone, processes)), "the engine, tritonserver and its models end")
    assert None not in in_flight.errors()
    calls.close()


def test_an_engine_that_cannot_be_loaded_ends_the_start_with_its_reason(
    start_triton: TritonStarter, tmp_path: Path
) -> None:
    (tmp_path / "empty" / "base_model").mkdir(parents=True)
    server = start_triton(model_dir=tmp_path / "empty", wait=False)
    assert server.process.wait(timeout=WITHIN) == 2
    last = server.log_text().splitlines()[-1]
    assert last.startswith("triton-diffusers: tritonserver did not start: ")
    assert "model_index.json" in last
