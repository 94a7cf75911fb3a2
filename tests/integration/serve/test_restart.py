"""tritonserver itself dies, and is started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.integration.conftest import RunningTriton
from tests.integration.serve.processes import family, is_gone, region_prefix, regions
from tests.integration.serve.request import generate, infer_over_grpc, pid_of, was_lost
from tests.integration.serve.waiting import BACK_WITHIN, NOTICED_WITHIN, until, until_logged


def test_tritonserver_that_dies_is_started_again(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor, repository: Path
) -> None:
    server = start()
    (tritonserver, *models), prefix = family(server), region_prefix(server)
    waiting = [crowd.submit(generate, server, "steps", seconds=20) for _ in range(4)]
    waiting += [crowd.submit(infer_over_grpc, server, "chain", 20) for _ in range(4)]
    time.sleep(1)
    os.kill(tritonserver, signal.SIGKILL)
    until_logged(server, "tritonserver is started again now: SIGKILL, see its log", 10)
    until(lambda: server.log_text().count("is ready after") == 2, BACK_WITHIN, "tritonserver is back")
    assert all(map(was_lost, waiting)), [future.result() for future in waiting if not was_lost(future)]
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
    until_logged(server, "started again in 2 s: tritonserver did not start: model mirror failed to load: ", 30)
    broken.unlink()
    until(lambda: server.log_text().count("is ready after") == 3, BACK_WITHIN, "tritonserver is back")
    assert server.stop() == 0
    assert not regions(prefix)


def test_unwatched_tritonserver_that_dies_ends_the_launcher(start: Callable[..., RunningTriton]) -> None:
    server = start("--no-watch")
    tritonserver, *models = family(server)
    os.kill(tritonserver, signal.SIGKILL)
    assert server.process.wait(timeout=20) == 1
    assert "tritonserver has ended: SIGKILL" in server.log_text()
    assert all(map(is_gone, models))
