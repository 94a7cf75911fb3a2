"""tritonserver itself dies, and is started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.integration.conftest import RunningTriton
from tests.integration.serve.processes import family, is_gone, region_prefix, regions
from tests.integration.serve.request import ended_well, generate, infer_over_grpc, pid_of, was_lost
from tests.integration.serve.waiting import until_logged, until_ready_again
from tests.waiting import WITHIN


def test_tritonserver_that_dies_is_started_again(
    start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor, repository: Path
) -> None:
    server = start()
    (tritonserver, *models), prefix = family(server), region_prefix(server)
    waiting = [crowd.submit(generate, server, "steps", seconds=20) for _ in range(4)]
    waiting += [crowd.submit(infer_over_grpc, server, "chain", 20) for _ in range(4)]
    until_logged(server, "steps takes 20 s")
    os.kill(tritonserver, signal.SIGKILL)
    until_logged(server, "tritonserver is started again now: SIGKILL, see its log")
    until_ready_again(server)
    assert any(map(was_lost, waiting))
    # Some may have come so late that the next tritonserver has answered them.
    assert all(map(ended_well, waiting)), [future.result() for future in waiting if not ended_well(future)]
    assert all(map(is_gone, (tritonserver, *models)))
    # At the old addresses, and watched as before.
    assert infer_over_grpc(server, "chain", 0.0)[0] == "OK"
    killed = pid_of(server, "mirror")
    os.kill(killed, signal.SIGKILL)
    until_logged(server, f"model mirror is dead: .*{killed}")
    until_logged(server, "model mirror answers again")
    # Once more, with a model that cannot be loaded for a while.
    broken = repository / "mirror" / "broken"
    broken.touch()
    os.kill(family(server)[0], signal.SIGKILL)
    until_logged(server, "started again in 2 s: tritonserver did not start: model mirror failed to load: ")
    broken.unlink()
    until_ready_again(server, 3)
    assert server.stop() == 0
    assert not regions(prefix)


def test_unwatched_tritonserver_that_dies_ends_the_launcher(start: Callable[..., RunningTriton]) -> None:
    server = start("--no-watch")
    tritonserver, *models = family(server)
    os.kill(tritonserver, signal.SIGKILL)
    assert server.process.wait(timeout=WITHIN) == 1
    assert "tritonserver has ended: SIGKILL" in server.log_text()
    assert all(map(is_gone, models))
