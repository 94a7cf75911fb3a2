"""A model process that dies or hangs is noticed and brought back, and only such a one."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.integration.conftest import RunningTriton
from tests.integration.serve.processes import family, is_gone
from tests.integration.serve.request import RETRYABLE, call, ended_well, generate, infer_over_grpc, pid_of
from tests.integration.serve.waiting import until_back, until_logged
from tests.waiting import WITHIN, until


def test_process_that_dies_idle_is_noticed_and_brought_back(start: Callable[..., RunningTriton]) -> None:
    server = start()
    tritonserver = family(server)[0]
    for model, pid in {model: pid_of(server, model) for model in ("steps", "mirror")}.items():
        os.kill(pid, signal.SIGKILL)
        until_logged(server, f"model {model} is dead: .*{pid}")
        until_logged(server, f"model {model} answers again")
        assert pid_of(server, model) != pid
    assert pid_of(server, "chain") == pid_of(server, "steps")
    assert family(server)[0] == tritonserver, "the server itself continued"


def test_requests_in_flight_at_a_death_are_all_answered(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor
) -> None:
    server = start("--exit-timeout=1000")
    killed = pid_of(server, "steps")
    waiting: list[Future[tuple[Any, Any]]] = []
    for model in ("steps", "chain"):  # 60 requests for 8 places: some run, the others queue
        waiting += [crowd.submit(generate, server, model, seconds=20) for _ in range(15)]
        waiting += [crowd.submit(infer_over_grpc, server, model, 20) for _ in range(15)]
    until_logged(server, "steps takes 20 s")
    os.kill(killed, signal.SIGKILL)
    until_back(server, "steps", killed)
    for model in ("steps", "chain"):
        status, answer = generate(server, model, seconds=0)
        assert (status, answer["pid"] == killed) == (200, False)
    assert all(map(ended_well, waiting)), [future.result() for future in waiting if not ended_well(future)]
    assert server.stop() == 0, "Triton's wait for the dead instance is cut short"


def test_crowded_model_is_not_taken_for_dead(start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor) -> None:
    server = start("--hang-timeout=8")
    pid = pid_of(server, "steps")
    waiting = [crowd.submit(generate, server, "steps", seconds=2.5) for _ in range(32)]  # four batches
    assert {future.result()[1]["pid"] for future in waiting} == {pid}
    assert "is dead" not in server.log_text()


def test_hung_process_is_replaced(start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor) -> None:
    server = start("--hang-timeout=2")
    pid = pid_of(server, "mirror")
    hung = crowd.submit(generate, server, "mirror", sleep=1000)
    until_logged(server, "model mirror is dead: no answer for .* s, and no progress")
    until_logged(server, "model mirror answers again")
    assert RETRYABLE.search(hung.result(timeout=WITHIN)[1]["error"])
    assert pid_of(server, "mirror") != pid
    assert is_gone(pid)


def test_repair_that_fails_is_tried_again_later_and_later(
    start: Callable[..., RunningTriton], repository: Path
) -> None:
    server = start()
    (repository / "mirror" / "broken").touch()
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    until_logged(server, r"mirror could not be brought back \(attempt 1\): .*told to be broken.*in 1 s")
    until_logged(server, r"mirror could not be brought back \(attempt 2\): .*in 2 s")
    assert pid_of(server, "steps"), "the others are served meanwhile"
    (repository / "mirror" / "broken").unlink()
    until_logged(server, "model mirror answers again")
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
    model.write_text("import time; time.sleep(3)\n" + model.read_text())
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    until_logged(server, "model mirror is dead")
    assert {ask(connection) for connection in connections} == {200}
    assert "model mirror answers again" not in server.log_text(), "they did not wait for it"
    until_logged(server, "model mirror answers again")
    for connection in connections:
        connection.close()


def test_model_that_was_unloaded_on_purpose_stays_so(start: Callable[..., RunningTriton]) -> None:
    server = start()
    pid = pid_of(server, "mirror")
    for path in ("/v2/repository/models/mirror/unload", "/v2/repository/index", "/v2/systemsharedmemory/status"):
        assert call(server, path, {})[0] in (403, 405), "only who has the server's key may do that"
    assert pid_of(server, "mirror") == pid
    assert call(server, "/v2/repository/models/mirror/unload", {}, with_key=True)[0] == 200
    until_logged(server, "model mirror is not loaded")
    until(lambda: is_gone(pid), "its process ends")
    time.sleep(1.5)  # three looks at the processes
    assert generate(server, "mirror", sleep=0)[0] != 200
    assert "is dead" not in server.log_text()
    assert call(server, "/v2/repository/models/mirror/load", {}, with_key=True)[0] == 200
    until_logged(server, "model mirror answers its probe again")
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    until_logged(server, "model mirror answers again")
    assert server.log_text().count("model mirror is dead") == 1


def test_nothing_is_brought_back_unwatched(start: Callable[..., RunningTriton]) -> None:
    server = start("--no-watch")
    os.kill(pid_of(server, "mirror"), signal.SIGKILL)
    time.sleep(3)
    status, answer = generate(server, "mirror", sleep=0)
    assert (status, "not healthy" in answer["error"]) == (400, True)
