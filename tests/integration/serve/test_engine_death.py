"""The process that holds the emoji model dies while it makes images."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.integration.conftest import RunningTriton, TritonStarter
from tests.integration.serve.processes import family
from tests.integration.serve.request import call, generate, was_lost
from tests.integration.serve.waiting import until, until_back
from triton_diffusers_client import Client, Options

WITHIN = 120.0  # seconds; generous, for loaded machines


def known_tasks(server: RunningTriton) -> list[str]:
    """Return the names of the jobs that the model ``jobs`` lists; Triton's JSON has a list of one as its only item."""
    names = call(server, "/v2/models/jobs/generate", {})[1]["task_id"]
    return [names] if isinstance(names, str) else names


def test_engine_that_dies_in_the_middle_of_images(start_triton: TritonStarter, crowd: ThreadPoolExecutor) -> None:
    """The repository's own models, on the emoji model."""
    server = start_triton()
    with Client(server.http_url, timeout=WITHIN) as client:
        ends_with_a_client_that_tries_again(server, client, crowd)
    status, answer = generate(server, "ensemble", task_id="after", prompt="a red apple", steps=2)
    assert (status, answer["success"]) == (200, 1)
    assert server.stop() == 0


def ends_with_a_client_that_tries_again(server: RunningTriton, client: Client, crowd: ThreadPoolExecutor) -> None:
    """Lose the requests in flight; callers of our client lose time only."""
    options: Options = {"steps": 40, "image_num": 4, "seed": 7, "width": 64, "height": 64, "embed_metadata": False}
    expected = client.generate("a red apple", **options)
    image = {"prompt": "a red apple", "steps": 150, "width": 128, "height": 128, "image_num": 8}
    waiting = [crowd.submit(generate, server, "ensemble", task_id=f"in-flight-{i}", **image) for i in range(6)]
    until(lambda: set(known_tasks(server)) >= {f"in-flight-{i}" for i in range(6)}, 30, "all are being made")
    job = client.submit("a red apple", **options)
    until(lambda: job.task_id in known_tasks(server), 30, "the client's is being made")
    assert not any(future.done() for future in waiting)
    (engine,) = (pid for pid in family(server) if b"/sd_base/" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(engine, signal.SIGKILL)
    until_back(server, "sd_base", engine)
    assert all(map(was_lost, waiting)), [future.result() for future in waiting if not was_lost(future)]
    assert job.result(WITHIN).images == expected.images
