"""The client, blocking and asynchronous, against the real gateway, runner and server."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.gateway.conftest import WITHIN, Service
from triton_diffusers_client import (
    AsyncClient,
    CancelledError,
    Client,
    ClientError,
    Generation,
    Interface,
    InvalidRequestError,
    JobState,
    NotFoundError,
    Options,
    Progress,
)

SMALL: Options = {"steps": 2, "width": 64, "height": 64, "embed_metadata": False}
LONG: Options = {"steps": 60, "width": 64, "height": 64, "image_num": 2}


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(str(service.client.base_url), timeout=WITHIN * 5) as made:
        yield made


def test_the_same_image_as_from_triton(client: Client, service: Service) -> None:
    assert client.interface is Interface.GATEWAY
    drawn = client.generate("a red apple", seed=7, image_num=2, **SMALL)
    with Client(service.triton.http_url) as direct:
        assert direct.interface is Interface.TRITON
        assert direct.generate("a red apple", seed=7, image_num=2, **SMALL).images == drawn.images
    assert [image.seed for image in drawn.images] == [7, 8]
    assert drawn.parameters["steps"] == 2
    found = client.job(drawn.job_id)
    assert found.result().images == drawn.images
    status = found.status()
    assert (status.state, status.fraction, status.image_num, status.images_done) == (JobState.SUCCEEDED, 1.0, 2, 2)
    assert status.id in [job.id for job in client.jobs(states="succeeded")]
    found.delete()
    with pytest.raises(NotFoundError):
        client.job(drawn.job_id)


def test_images_are_carried_both_ways(client: Client) -> None:
    first = client.generate("a red apple", seed=7, **SMALL).images[0]
    changed = client.generate("a green apple", seed=7, image=first, denoising_strength=0.5, **SMALL)
    assert changed.images[0].pil().size == (64, 64)
    assert changed.parameters["func_name"] == "i2i"
    assert changed.images[0].data != first.data


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        ({"steps": 900}, InvalidRequestError, "steps"),
        ({"image": b"none"}, InvalidRequestError, "image_base64"),
        ({"model": "nobody"}, InvalidRequestError, "model"),
        ({"lora_path": "missing.safetensors"}, InvalidRequestError, None),
    ],
)
def test_the_gateways_errors(client: Client, options: Options, error: type[ClientError], field: str | None) -> None:
    with pytest.raises(error) as caught:
        client.generate("x", **{**SMALL, **options})
    assert isinstance(caught.value, InvalidRequestError)
    if field:
        assert caught.value.field == field


def test_progress_and_previews_until_the_end(client: Client) -> None:
    job = client.submit("a red apple", **LONG)
    seen = list(job.progress(previews=True))
    steps = [now.step for now in seen]
    assert steps == sorted(steps)
    assert len(set(steps)) > 2
    assert seen[-1].state is JobState.SUCCEEDED
    previews = [now.preview for now in seen if now.preview]
    assert {preview.format for preview in previews} == {"jpeg"}
    assert previews[0].pil().size == (64, 64)
    assert len(job.result().images) == 2


def test_a_gateway_that_is_killed_in_the_middle_of_a_stream(client: Client, service: Service) -> None:
    """The next one listens on the same port; the stream continues after its last event, and no job is drawn twice."""
    for image_num in (1, 4, 8):  # until a job is not too fast for this
        before = len(client.jobs())
        job = client.submit("a red apple", steps=30, image_num=image_num, width=64, height=64)
        seen: list[Progress] = []
        results: list[Generation] = []
        waiting = threading.Thread(target=lambda job=job, results=results: results.append(job.result()))  # type: ignore[misc]
        waiting.start()
        killed = False
        for now in job.progress():
            seen.append(now)
            if not killed and now.step > 0 and not now.state.ended:
                service.end("gateway", signal.SIGKILL)
                service.start("gateway", "gateway", f"--port={service.client.base_url.port}")
                killed = True
        assert seen[-1].state is JobState.SUCCEEDED
        waiting.join(WITHIN * 4)
        assert len(results[0].images) == image_num
        assert len(client.jobs()) == before + 1
        if killed:
            break
    assert killed


def test_a_batch_as_it_completes(client: Client) -> None:
    jobs = client.submit_many(["a red apple", {"prompt": "a pear", "steps": 3}], seed=5, **{**SMALL, "steps": 2})
    ended = {job.id: job.result().parameters["steps"] for job in client.as_completed(jobs, timeout=WITHIN)}
    assert ended == {jobs[0].id: 2, jobs[1].id: 3}


def test_jobs_outlive_their_client_and_are_cancelled_by_another(client: Client, service: Service) -> None:
    with Client(str(service.client.base_url)) as first:
        label = first.submit("a red apple", task_id="kept", steps=150, image_num=8, width=128, height=128).task_id
    job = client.job(label)
    assert not job.status().state.ended
    assert job.cancel()
    with pytest.raises(CancelledError):
        job.result(WITHIN)


def test_the_asynchronous_client(service: Service) -> None:
    async def draw() -> list[Progress]:
        async with AsyncClient(str(service.client.base_url), timeout=WITHIN * 5) as client:
            one, other = await asyncio.gather(
                client.generate("a red apple", seed=7, **SMALL), client.generate("a pear", seed=7, **SMALL)
            )
            assert one.images[0].data != other.images[0].data
            jobs = await client.submit_many(["a red apple", "a pear"], **SMALL)
            assert {job.id async for job in client.as_completed(jobs)} == {job.id for job in jobs}
            job = await client.submit("a red apple", **{**SMALL, "steps": 10})
            seen = [now async for now in job.progress(previews=True)]
            assert len((await job.result()).images) == 1
            endless = asyncio.create_task(client.generate("x", task_id="left", steps=150, image_num=8))
            while not await client.jobs(task_id="left"):
                await asyncio.sleep(0.05)
            endless.cancel()
            with pytest.raises(asyncio.CancelledError):
                await endless
            left = await client.job("left")
            assert await left.wait(WITHIN)
            assert (await left.status()).state is JobState.CANCELLED
            return seen

    seen = asyncio.run(draw())
    assert seen[-1].state is JobState.SUCCEEDED


def test_the_asynchronous_client_at_a_triton(service: Service) -> None:
    async def draw(url: str) -> None:
        async with AsyncClient(url, timeout=WITHIN * 5) as client:
            assert await client.interface() is Interface.TRITON
            job = await client.submit("a red apple", seed=7, **SMALL)
            states = [now.state async for now in job.progress()]
            assert states[-1] is JobState.SUCCEEDED
            assert (await job.result()).images == (await client.generate("a red apple", seed=7, **SMALL)).images
            jobs = await client.submit_many(["a red apple", "a pear"], **SMALL)
            assert {job.id async for job in client.as_completed(jobs)} == {job.id for job in jobs}
            endless = await client.submit("x", steps=150, image_num=8)
            assert not await endless.done()
            await endless.cancel()
            with pytest.raises(CancelledError):
                await endless.result()

    for url in (service.triton.http_url, f"grpc://{service.triton.grpc_url}"):
        asyncio.run(draw(url))


def run(service: Service, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "triton_diffusers_client", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "TRITON_DIFFUSERS_URL": str(service.client.base_url)},
        timeout=WITHIN * 2,
        check=False,
    )


def test_the_command_line(service: Service, tmp_path: Path) -> None:
    small = ("--steps=2", "--size=64x64")
    drawn = run(service, tmp_path, "generate", "a red apple", "-o", "apple.jpg", *small)
    assert (drawn.returncode, drawn.stdout) == (0, "apple.jpg\n"), drawn.stderr
    assert "\r" not in drawn.stderr, "no bar where there is no terminal"
    sent = run(service, tmp_path, "generate", "x", "--no-wait", "--task-id=later", "--json", *small)
    job = json.loads(sent.stdout)
    assert job["task_id"] == "later"
    watched = run(service, tmp_path, "watch", "later", "-o", "later.png")
    assert (watched.returncode, watched.stdout) == (0, "later.png\n"), watched.stderr
    assert (tmp_path / "later.png").read_bytes().startswith(b"\x89PNG")
    shown = json.loads(run(service, tmp_path, "progress", job["id"], "--json").stdout)
    assert (shown["id"], shown["state"]) == (job["id"], "succeeded")
    assert "had ended: succeeded" in run(service, tmp_path, "cancel", "later").stdout
    table = run(service, tmp_path, "jobs", "--state=succeeded", "--limit=2").stdout.splitlines()
    assert table[0].split()[:3] == ["JOB", "TASK", "MODEL"]
    assert table[1].startswith(job["id"])
    assert len(table) == 3
    assert run(service, tmp_path, "delete", "later").stdout == "later is deleted\n"
    gone = run(service, tmp_path, "watch", "later")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert len(gone.stderr.splitlines()) == 1
    assert run(service, tmp_path, "generate", "x", "--steps=-1").returncode == 1
    late = run(service, tmp_path, "generate", "x", "--steps=150", "--image-num=8", "--timeout=1", "--task-id=late")
    assert late.returncode == 4, late.stderr


def test_the_bar_on_a_real_terminal(service: Service, tmp_path: Path) -> None:
    screen, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    url = f"--url={service.client.base_url}"
    words = ["generate", "a red apple", "--steps=30", "--size=64x64", "--image-num=2", "-o", "apple.png", url]
    process = subprocess.Popen(
        [sys.executable, "-m", "triton_diffusers_client", *words],
        stdout=subprocess.PIPE,
        stderr=program,
        text=True,
        cwd=tmp_path,
    )
    os.close(program)
    shown = b""
    with suppress(OSError):  # what Linux says when the last writer has closed it
        while part := os.read(screen, 2**16):
            shown += part
    os.close(screen)
    assert process.communicate(timeout=WITHIN)[0].split() == ["apple-1.png", "apple-2.png"]
    states = [state for state in shown.decode().replace("\n", "\r").split("\r") if state.strip()]
    assert any(re.match(r"(drawing|decoding) +\d+%\|.*\| \d+/60 steps \[\d\d:\d\d", state) for state in states), states
    assert states[-1].startswith("2 images in "), "the bar is gone"
    assert max(map(len, states[:-1])) <= 70
