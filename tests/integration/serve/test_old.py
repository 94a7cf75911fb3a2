"""``triton-diffusers serve`` on a real Triton with tiny models: what dies comes back, what is stopped is gone."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from tests.integration.conftest import RunningTriton, TritonStarter
from triton_diffusers import cli

NOTICED_WITHIN = 10.0  # seconds; the promise
BACK_WITHIN = 60.0  # the tiny models load at once; the rest is for loaded machines
RETRYABLE = re.compile(r"Stub process .* is not healthy|unknown model|is not ready|no available versions")
# A process that is killed while it holds a lock in the shared memory takes Triton with it: rare, and survived as well.
LOST = (ConnectionError, http.client.HTTPException)
LOST_OVER_GRPC = "StatusCode.UNAVAILABLE"

# Waits "seconds", step by step, while others come and go: the way in which the real engine serves.
STEPS_CONFIG = """
backend: "python"
max_batch_size: 8
input [
  { name: "seconds" data_type: TYPE_FP32 dims: [1] optional: true },
  { name: "func_name" data_type: TYPE_STRING dims: [1] optional: true }
]
output [ { name: "pid" data_type: TYPE_INT32 dims: [1] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
sequence_batching {
  iterative_sequence: true
  control_input [ { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] } ]
  oldest { max_candidate_sequences: 8 }
  max_sequence_idle_microseconds: 60000000
}
parameters { key: "probe" value { string_value: "{\\"func_name\\": \\"probe\\"}" } }
"""
STEPS_MODEL = """
import os, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.ends = {}

    def execute(self, requests):
        time.sleep(0.02)
        return [self.answer(request) for request in requests]

    def answer(self, request):
        name = int(pb_utils.get_input_tensor_by_name(request, "CORRID").as_numpy().item())
        seconds = pb_utils.get_input_tensor_by_name(request, "seconds")
        end = self.ends.setdefault(name, time.time() + (0.0 if seconds is None else seconds.as_numpy().item()))
        if time.time() < end:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return None
        del self.ends[name]
        return pb_utils.InferenceResponse([pb_utils.Tensor("pid", np.array([[os.getpid()]], np.int32))])
"""
CHAIN_CONFIG = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "seconds" data_type: TYPE_FP32 dims: [1] optional: true } ]
output [ { name: "pid" data_type: TYPE_INT32 dims: [1] } ]
ensemble_scheduling { step [ {
  model_name: "steps"
  model_version: -1
  input_map { key: "seconds" value: "seconds" }
  output_map { key: "pid" value: "pid" }
} ] }
"""
# Answers with what it sees of its surroundings; "sleep" hangs it; cannot be loaded while a file called "broken" is
# beside its version folder.
MIRROR_CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "sleep" data_type: TYPE_FP32 dims: [1] } ]
output [ { name: "seen" data_type: TYPE_STRING dims: [1] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "probe" value { string_value: "{\\"sleep\\": 0}" } }
"""
MIRROR_MODEL = """
import json, os, pathlib, sys, time
import numpy as np
import triton_python_backend_utils as pb_utils
import triton_diffusers.cli

class TritonPythonModel:
    def initialize(self, args):
        if (pathlib.Path(args["model_repository"]) / "broken").exists():
            raise RuntimeError("told to be broken")

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        time.sleep(pb_utils.get_input_tensor_by_name(request, "sleep").as_numpy().item())
        seen = json.dumps({
            "pid": os.getpid(),
            "prefix": sys.prefix,
            "package": triton_diffusers.cli.__file__,
            "variables": {key: value for key, value in os.environ.items() if key.startswith("TRITON_DIFFUSERS_")},
        })
        return pb_utils.InferenceResponse([pb_utils.Tensor("seen", np.array([seen], object))])
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three tiny models: ``steps`` (iterative), ``chain`` (an ensemble that calls it) and ``mirror``."""
    root = tmp_path / "repository"
    for name, config, model in (
        ("steps", STEPS_CONFIG, STEPS_MODEL),
        ("chain", CHAIN_CONFIG, None),
        ("mirror", MIRROR_CONFIG, MIRROR_MODEL),
    ):
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(config)
        if model:
            (root / name / "1" / "model.py").write_text(model)
    return root


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """The least that passes for a model directory."""
    folder = tmp_path / "model"
    (folder / "base_model").mkdir(parents=True)
    return folder


@pytest.fixture
def start(start_triton: TritonStarter, repository: Path, model_dir: Path) -> Callable[..., RunningTriton]:
    """Starts a server of the test's own on the tiny models."""

    def start(*args: str, **options: Any) -> RunningTriton:
        return start_triton(model_repository=repository, model_dir=model_dir, args=args, **options)

    return start


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    """Threads for many callers at once."""
    with ThreadPoolExecutor(max_workers=80) as pool:
        yield pool


def call(
    server: RunningTriton, path: str, body: Any = None, timeout: float = 120.0, *, with_key: bool = False
) -> tuple[int, Any]:
    """POST ``body`` (GET without one); the status and the JSON of the answer, None if it is empty."""
    address = urlsplit(server.http_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout)
    headers = {"triton-diffusers-key": server.control_key} if with_key else {}
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


def generate(server: RunningTriton, model: str, timeout: float = 120.0, **inputs: Any) -> tuple[int, Any]:
    return call(server, f"/v2/models/{model}/generate", inputs, timeout)


def infer_over_grpc(server: RunningTriton, model: str, seconds: float) -> tuple[str, Any]:
    """Like ``generate`` for the models ``steps`` and ``chain``, over gRPC; an error is its status and message."""
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        tensor = grpc_client.InferInput("seconds", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), seconds, np.float32))
        try:
            result = client.infer(model, [tensor], client_timeout=120)
        except InferenceServerException as error:
            return str(error.status()), {"error": error.message()}
        return "OK", {"pid": int(result.as_numpy("pid").item())}


def pid_of(server: RunningTriton, model: str) -> int:
    """The number of a model's process, from the model itself."""
    status, answer = generate(server, model, **({"sleep": 0} if model == "mirror" else {"seconds": 0}))
    assert status == 200, answer
    return int(json.loads(answer["seen"])["pid"] if model == "mirror" else answer["pid"])


def until(condition: Callable[[], Any], within: float, what: str) -> Any:
    """Wait until ``condition()`` is true and return its value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(0.05)
    return value


def until_logged(server: RunningTriton, pattern: str, within: float) -> re.Match[str]:
    found: re.Match[str] = until(lambda: re.search(pattern, server.log_text()), within, pattern)
    return found


def until_back(server: RunningTriton, model: str, pid: int) -> None:
    """Wait until the death of a model's process is noticed and the model answers again, or all of Triton does."""
    found = until_logged(server, rf"model {model} is dead: .*{pid}|tritonserver ended by itself", NOTICED_WITHIN)
    if found[0].startswith("model"):
        until_logged(server, f"model {model} answers again|tritonserver ended by itself", BACK_WITHIN * 2)
    if "tritonserver ended by itself" in server.log_text():
        until(lambda: server.log_text().count("is ready after") == 2, BACK_WITHIN * 2, "tritonserver is back")


def ended_well(future: Future[tuple[Any, Any]]) -> bool:
    """Whether a request got its answer, or an error after which a client tries again."""
    try:
        status, answer = future.result(timeout=120)
    except LOST:
        return True
    return status in (200, "OK", LOST_OVER_GRPC) or RETRYABLE.search(answer["error"]) is not None


def known_tasks(server: RunningTriton) -> list[str]:
    """The names of the jobs that the model ``jobs`` lists; Triton's JSON has a list of one as its only item."""
    names = call(server, "/v2/models/jobs/generate", {})[1]["task_id"]
    return [names] if isinstance(names, str) else names


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started."""
    listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def family(server: RunningTriton) -> list[int]:
    """tritonserver and its model processes."""
    (tritonserver,) = children(server.process.pid)
    return [tritonserver, *children(tritonserver)]


def region_prefix(server: RunningTriton) -> str:
    (tritonserver, *_) = family(server)
    found = re.search(r"shm-region-prefix-name=([^\0]+)", Path(f"/proc/{tritonserver}/cmdline").read_text())
    assert found
    return found[1]


def regions(prefix: str) -> list[str]:
    return [region.name for region in Path("/dev/shm").iterdir() if region.name.startswith(prefix)]


def test_says_where_to_call_and_is_there(start: Callable[..., RunningTriton], model_dir: Path) -> None:
    server = start("--", "--id=a-name-of-its-own", env={"TRITON_DIFFUSERS_SOMETHING_ELSE": "as it is"})
    assert call(server, "/v2/health/ready")[0] == 200
    assert infer_over_grpc(server, "chain", 0.0)[0] == "OK"
    address = urlsplit(server.metrics_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
    connection.request("GET", address.path)
    assert b"nv_inference_count" in connection.getresponse().read()
    connection.close()
    said = server.log_text()
    for place in (f"{server.http_url}/v2/models/chain/generate", server.grpc_url, server.metrics_url):
        assert place in said
    assert "/v2/models/steps/generate" not in said, "steps is called by chain, not by people"
    assert call(server, "/v2")[1]["name"] == "a-name-of-its-own", "what is after -- reaches tritonserver"

    # The model processes are this Python, with these settings.
    status, answer = generate(server, "mirror", sleep=0)
    assert status == 200
    seen = json.loads(answer["seen"])
    assert seen["prefix"] == sys.prefix
    assert seen["package"] == cli.__file__
    assert seen["variables"] == {
        "TRITON_DIFFUSERS_MODEL_DIR": str(model_dir),
        "TRITON_DIFFUSERS_RUNTIME_DIR": str(server.runtime_dir),
        "TRITON_DIFFUSERS_STORE": str(server.log.parent / "results"),
        "TRITON_DIFFUSERS_SOMETHING_ELSE": "as it is",
    }


def test_process_that_dies_idle_is_noticed_and_brought_back(start: Callable[..., RunningTriton]) -> None:
    server = start()
    tritonserver = family(server)[0]
    for model, pid in {model: pid_of(server, model) for model in ("steps", "mirror")}.items():
        os.kill(pid, signal.SIGKILL)
        until_logged(server, f"model {model} is dead: .*{pid}", NOTICED_WITHIN)
        until_logged(server, f"model {model} answers again", BACK_WITHIN)
        assert pid_of(server, model) != pid
    assert pid_of(server, "chain") == pid_of(server, "steps")
    assert family(server)[0] == tritonserver, "the server itself went on"


def test_requests_in_flight_at_a_death_are_all_answered(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor
) -> None:
    server = start()
    killed = pid_of(server, "steps")
    waiting: list[Future[tuple[Any, Any]]] = []
    for model in ("steps", "chain"):  # 60 requests for 8 places: some run, the others queue
        waiting += [crowd.submit(generate, server, model, seconds=20) for _ in range(15)]
        waiting += [crowd.submit(infer_over_grpc, server, model, 20) for _ in range(15)]
    until(lambda: json.dumps(call(server, "/v2/models/steps/stats")[1]).count("execution_count"), 10, "statistics")
    time.sleep(1)
    os.kill(killed, signal.SIGKILL)
    until_back(server, "steps", killed)
    for model in ("steps", "chain"):
        status, answer = generate(server, model, seconds=0)
        assert (status, answer["pid"] == killed) == (200, False)
    assert all(map(ended_well, waiting)), [future.result() for future in waiting if not ended_well(future)]
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 14, "Triton's wait for the dead instance is cut short"


def test_crowded_model_is_not_taken_for_dead(start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor) -> None:
    server = start("--hang-timeout=2")
    pid = pid_of(server, "steps")
    waiting = [crowd.submit(generate, server, "steps", seconds=5) for _ in range(24)]  # three times its places
    assert {future.result()[1]["pid"] for future in waiting} == {pid}
    assert "is dead" not in server.log_text()


def test_hung_process_is_replaced(start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor) -> None:
    server = start("--hang-timeout=2")
    pid = pid_of(server, "mirror")
    hung = crowd.submit(generate, server, "mirror", sleep=1000)
    until_logged(server, "model mirror is dead: no answer for .* s, and no progress", 30)
    until_logged(server, "model mirror answers again", BACK_WITHIN)
    assert RETRYABLE.search(hung.result(timeout=60)[1]["error"])
    assert pid_of(server, "mirror") != pid
    assert is_gone(pid)


def test_repair_that_fails_is_tried_again_later_and_later(
    start: Callable[..., RunningTriton], repository: Path
) -> None:
    server = start()
    (repository / "mirror" / "broken").touch()
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    until_logged(server, r"mirror could not be brought back \(attempt 1\): .*told to be broken.*in 1 s", 30)
    until_logged(server, r"mirror could not be brought back \(attempt 2\): .*in 2 s", 30)
    assert pid_of(server, "steps"), "the others are served meanwhile"
    (repository / "mirror" / "broken").unlink()
    until_logged(server, "model mirror answers again", BACK_WITHIN)
    assert pid_of(server, "mirror")


def test_others_are_served_while_a_model_is_brought_back(start: Callable[..., RunningTriton], repository: Path) -> None:
    # One HTTP worker of Triton's holds several connections: with 24 of them, each of its 8 workers holds some.
    server = start()
    address = urlsplit(server.http_url)
    connections = [http.client.HTTPConnection(str(address.hostname), address.port, timeout=60) for _ in range(24)]

    def ask(connection: http.client.HTTPConnection) -> int:
        connection.request("POST", "/v2/models/steps/generate", '{"seconds": 0}')
        answer = connection.getresponse()
        answer.read()
        return answer.status

    assert {ask(connection) for connection in connections} == {200}
    model = repository / "mirror" / "1" / "model.py"
    model.write_text("import time; time.sleep(6)\n" + model.read_text())
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    until_logged(server, "model mirror is dead", NOTICED_WITHIN)
    assert {ask(connection) for connection in connections} == {200}
    assert "model mirror answers again" not in server.log_text(), "they did not wait for it"
    until_logged(server, "model mirror answers again", BACK_WITHIN)
    for connection in connections:
        connection.close()


def test_model_that_was_unloaded_on_purpose_stays_so(start: Callable[..., RunningTriton]) -> None:
    server = start()
    pid = pid_of(server, "mirror")
    for path in ("/v2/repository/models/mirror/unload", "/v2/repository/index", "/v2/systemsharedmemory/status"):
        assert call(server, path, {})[0] in (403, 405), "only who has the server's key may do that"
    assert pid_of(server, "mirror") == pid
    assert call(server, "/v2/repository/models/mirror/unload", {}, with_key=True)[0] == 200
    until_logged(server, "model mirror is not loaded", 20)
    until(lambda: is_gone(pid), 20, "its process ends")
    time.sleep(1.5)  # three looks at the processes
    assert generate(server, "mirror", sleep=0)[0] != 200
    assert "is dead" not in server.log_text()
    assert call(server, "/v2/repository/models/mirror/load", {}, with_key=True)[0] == 200
    until_logged(server, "model mirror answers its probe again", 20)
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    until_logged(server, "model mirror answers again", BACK_WITHIN)
    assert server.log_text().count("model mirror is dead") == 1


def test_nothing_is_brought_back_unwatched(start: Callable[..., RunningTriton]) -> None:
    server = start("--no-watch")
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    time.sleep(3)
    status, answer = generate(server, "mirror", sleep=0)
    assert (status, "not healthy" in answer["error"]) == (400, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_lets_requests_finish_and_leaves_nothing(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor, number: int
) -> None:
    server = start()
    processes, prefix = family(server), region_prefix(server)
    assert regions(prefix)
    short = crowd.submit(generate, server, "steps", seconds=3)
    time.sleep(0.5)
    os.killpg(server.process.pid, number)  # as the terminal does at Ctrl-C
    assert server.process.wait(timeout=40) == 0
    assert short.result()[0] == 200
    assert all(map(is_gone, processes))
    assert not regions(prefix)
    assert not (server.runtime_dir / "endpoints.json").exists()


def test_stop_does_not_wait_for_ever(start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor) -> None:
    server = start("--exit-timeout=2")
    processes, prefix = family(server), region_prefix(server)
    endless = [crowd.submit(generate, server, model, seconds=1000) for model in ("steps", "chain")]
    stuck = crowd.submit(generate, server, "mirror", sleep=1000)
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0
    for future in (*endless, stuck):
        # An error reply or a closed connection, but an end.
        assert future.exception(timeout=30) is not None or future.result()[0] != 200
    assert all(map(is_gone, processes))
    assert not regions(prefix)


def test_second_signal_stops_at_once(start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor) -> None:
    server = start("--exit-timeout=1000")
    processes = family(server)
    endless = crowd.submit(generate, server, "steps", seconds=1000)
    time.sleep(0.5)
    server.process.send_signal(signal.SIGINT)
    until_logged(server, "stopping", 10)
    time.sleep(1)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=20) == 128 + signal.SIGINT
    assert all(map(is_gone, processes))
    assert endless.exception(timeout=20) is not None


def test_killed_launcher_takes_everything_with_it(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    elsewhere = {"TMPDIR": str(tmp_path / "temporary")}
    server = start("--exit-timeout=3", env=elsewhere)
    processes, prefix = family(server), region_prefix(server)
    stuck = crowd.submit(generate, server, "mirror", sleep=1000)
    server.process.kill()
    until(lambda: all(map(is_gone, processes)), 20, "tritonserver and its model processes end")
    assert stuck.exception(timeout=30) is not None or stuck.result()[0] != 200
    # What a killed launcher could not remove, the next one does; and it does not touch one that runs.
    running = start(env=elsewhere)
    assert not regions(prefix)
    third = start(env=elsewhere)
    assert regions(region_prefix(running))
    assert pid_of(running, "steps")
    assert third.stop() == running.stop() == 0
    assert list((tmp_path / "temporary").glob("triton-diffusers-*")) == []


def test_tritonserver_that_dies_is_started_again(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor, repository: Path
) -> None:
    server = start()
    (tritonserver, *models), prefix = family(server), region_prefix(server)
    waiting = [crowd.submit(generate, server, "steps", seconds=20) for _ in range(4)]
    waiting += [crowd.submit(infer_over_grpc, server, "chain", 20) for _ in range(4)]
    time.sleep(1)
    os.kill(tritonserver, signal.SIGKILL)
    until_logged(server, "tritonserver ended by itself: SIGKILL, see its log above; it is started again now", 10)
    until(lambda: server.log_text().count("is ready after") == 2, BACK_WITHIN, "tritonserver is back")
    assert all(map(ended_well, waiting))
    assert all(map(is_gone, (tritonserver, *models)))
    # At the old addresses, and watched as before.
    assert infer_over_grpc(server, "chain", 0.0)[0] == "OK"
    killed = pid_of(server, "mirror")
    os.kill(killed, signal.SIGKILL)
    until_logged(server, f"model mirror is dead: .*{killed}", NOTICED_WITHIN)
    until_logged(server, "model mirror answers again", BACK_WITHIN)
    # Once more, with a model that cannot be loaded for a while.
    broken = repository / "mirror" / "broken"
    broken.touch()
    os.kill(family(server)[0], signal.SIGKILL)
    until_logged(server, "ended by itself: tritonserver did not start: model mirror failed to load: .*in 2 s", 30)
    broken.unlink()
    until(lambda: server.log_text().count("is ready after") == 3, BACK_WITHIN, "tritonserver is back")
    assert server.stop() == 0
    assert not regions(prefix)


def test_unwatched_tritonserver_that_dies_ends_the_launcher(start: Callable[..., RunningTriton]) -> None:
    server = start("--no-watch")
    tritonserver, *models = family(server)
    os.kill(tritonserver, signal.SIGKILL)
    assert server.process.wait(timeout=20) == 1
    assert "tritonserver ended by itself: SIGKILL" in server.log_text()
    assert all(map(is_gone, models))


def test_model_that_cannot_be_loaded_is_one_clear_line(start: Callable[..., RunningTriton], repository: Path) -> None:
    (repository / "mirror" / "broken").touch()
    server = start(wait=False)
    assert server.process.wait(timeout=60) == 2
    assert "triton-diffusers: tritonserver did not start: model mirror failed to load: " in server.log_text()
    assert "told to be broken" in server.log_text().splitlines()[-1]


def test_stop_while_models_load(start: Callable[..., RunningTriton], repository: Path) -> None:
    model = repository / "mirror" / "1" / "model.py"
    model.write_text("import time; print('loading for long', flush=True); time.sleep(1000)\n" + model.read_text())
    server = start("--exit-timeout=2", wait=False)
    until_logged(server, "loading for long", 60)
    processes = family(server)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0
    assert all(map(is_gone, processes))


def test_stop_while_a_model_is_brought_back(start: Callable[..., RunningTriton], repository: Path) -> None:
    server = start("--exit-timeout=2")
    model = repository / "mirror" / "1" / "model.py"
    model.write_text("import time; print('loading for long', flush=True); time.sleep(1000)\n" + model.read_text())
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    until_logged(server, "loading for long", 60)
    processes = family(server)
    assert server.stop() == 0
    assert all(map(is_gone, processes))
    assert "could not be brought back" not in server.log_text()


def test_system_tritonserver_comes_first(start: Callable[..., RunningTriton], tmp_path: Path) -> None:
    import pytriton

    wheel = Path(str(pytriton.__file__)).parent / "tritonserver"
    home = tmp_path / "system"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "tritonserver").symlink_to(wheel / "bin" / "tritonserver")
    backend = home / "backends" / "python"
    backend.mkdir(parents=True)
    for file in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / file).symlink_to(wheel / "backends" / "python" / file)
    stub = "triton_python_backend_stub"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (backend / stub).symlink_to(wheel / "python_backend_stubs" / version / stub)
    server = start(env={"PATH": f"{home / 'bin'}:{os.environ['PATH']}"})
    assert f"starting tritonserver (system, {home}/bin/tritonserver)" in server.log_text()
    assert pid_of(server, "chain")


def test_engine_that_dies_in_the_middle_of_pictures(start_triton: TritonStarter, crowd: ThreadPoolExecutor) -> None:
    """The repository's own models, on the emoji model."""
    server = start_triton()
    picture = {"prompt": "a red apple", "steps": 150, "width": 128, "height": 128, "image_num": 8}
    waiting = [crowd.submit(generate, server, "ensemble", task_id=f"in-flight-{i}", **picture) for i in range(6)]
    until(lambda: set(known_tasks(server)) >= {f"in-flight-{i}" for i in range(6)}, 30, "all are being made")
    assert not any(future.done() for future in waiting)
    (engine,) = (pid for pid in family(server) if b"/sd_base/" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(engine, signal.SIGKILL)
    until_back(server, "sd_base", engine)
    assert all(map(ended_well, waiting))
    status, answer = generate(server, "ensemble", task_id="after", prompt="a red apple", steps=2)
    assert (status, answer["success"]) == (200, 1)
    assert server.stop() == 0


def test_demo_draws_and_leaves_nothing_running(tmp_path: Path) -> None:
    output = tmp_path / "pictures" / "demo.png"
    run = subprocess.run(
        [sys.executable, "-m", "triton_diffusers", "demo", "--output", str(output)],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=300,
        check=False,
    )
    assert (run.returncode, run.stdout.strip()) == (0, str(output)), run.stderr
    assert output.read_bytes().startswith(b"\x89PNG")
    left = {path.name for path in tmp_path.iterdir()}
    assert {name for name in left if not name.startswith("torchinductor")} == {"pictures"}, "but for PyTorch's cache"


def test_demo_says_why_it_cannot_draw(repository: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["demo", "--model-repository", str(repository), "--model-dir", str(model_dir)]
    assert cli.main(command) == 2
    assert "no model in" in capsys.readouterr().err
    config = repository / "mirror" / "config.pbtxt"
    config.write_text(config.read_text().replace("sleep", "prompt"))
    (repository / "mirror" / "broken").touch()
    assert cli.main(command) == 2
    assert re.search(r"^triton-diffusers: the server did not start: .*told to be broken\n$", capsys.readouterr().err)
