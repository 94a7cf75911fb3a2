"""The client and its command line against the real server and the emoji model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import RunningTriton
from tests.waiting import WITHIN, until
from triton_diffusers_client import (
    CancelledError,
    Client,
    ClientError,
    InvalidRequestError,
    JobState,
    NotFoundError,
    Options,
    Progress,
    RequestTimeoutError,
)

# Equal images are equal files: none carries its parameters.
SMALL: Options = {"steps": 2, "width": 64, "height": 64, "embed_metadata": False}
# Takes many seconds if nobody ends it.
LONG: Options = {"steps": 150, "width": 128, "height": 128, "image_num": 8}


def urls_of(server: RunningTriton) -> dict[str, str]:
    return {"http": f"triton+{server.http_url}", "grpc": f"grpc://{server.grpc_url}"}


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, triton: RunningTriton) -> str:
    return urls_of(triton)[request.param]


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=2 * WITHIN) as client:
        yield client


def state_of(client: Client, task_id: str) -> JobState | None:
    try:
        return client.progress(task_id).state
    except NotFoundError:
        return None


def test_images(client: Client) -> None:
    result = client.generate("a red apple", seed=7, image_num=2, output_format="webp", **SMALL)
    assert result.seed == 7
    assert [image.seed for image in result.images] == [7, 8]
    assert [image.format for image in result.images] == ["webp", "webp"]
    assert [image.pil().size for image in result.images] == [(64, 64), (64, 64)]
    assert result.prompt == "a red apple"
    assert result.run_seconds > 0
    progress = client.progress(result.task_id)
    assert (progress.state, progress.images_done, progress.fraction) == (JobState.SUCCEEDED, 2, 1.0)
    assert progress in client.jobs()


def test_the_seed_in_the_answer_makes_the_image_again(client: Client) -> None:
    first = client.generate("a red apple", **SMALL)
    again = client.generate("a red apple", seed=first.images[0].seed, **SMALL)
    assert again.images[0].data == first.images[0].data
    assert again.task_id != first.task_id


def test_http_and_grpc_return_the_same_image(triton: RunningTriton) -> None:
    images = []
    for url in urls_of(triton).values():
        with Client(url) as client:
            images.append(client.generate("a red apple", seed=7, **SMALL).images[0].data)
    assert images[0] == images[1]


def test_through_the_ensemble(client: Client) -> None:
    alone = client.generate("a red apple", seed=7, **SMALL)
    assert client.generate("a red apple", model="sd_base", seed=7, **SMALL).images == alone.images


def test_chinese_is_translated_without_naming_a_model(client: Client) -> None:
    assert client.generate("蓝色背景上的红苹果", **SMALL).prompt == "a red apple on a blue background"
    assert client.generate("红苹果", model="sd_base", **SMALL).prompt == "红苹果"
    assert client.generate("红苹果", use_translate=False, **SMALL).prompt == "红苹果"


def test_images_as_base64(client: Client) -> None:
    plain = client.generate("a red apple", seed=7, **SMALL)
    coded = client.generate("a red apple", seed=7, return_images=False, use_base64=True, **SMALL)
    assert coded.images == plain.images
    assert client.generate("a red apple", return_images=False, **SMALL).images == ()


def test_every_option_at_its_default_is_accepted(client: Client) -> None:
    assert client.generate(
        "a red apple",
        **SMALL,
        negative_prompt="",
        func_name="t2i",
        image_link="",
        expand=(),
        lora_path=[],
        lora_attn=[],
        use_translate=None,
        save_dir="result",
    ).images


@pytest.mark.heavy
def test_an_answer_larger_than_grpcs_usual_limit(client: Client) -> None:
    # After one step an image is close to noise, which hardly compresses.
    result = client.generate("x", steps=1, cfg_scale=1.0, width=1024, height=1024, image_num=8)
    assert sum(len(image.data) for image in result.images) > 4 * 2**20


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": -1}, InvalidRequestError, "^steps: -1 "),
        ({"seed": "seven"}, InvalidRequestError, "^seed: 'seven' "),
        ({"scheduler": "Cancelled by Euler"}, InvalidRequestError, "^scheduler: "),
        ({"task_id": "../x"}, InvalidRequestError, "^task_id: "),
        ({"image": b"none", "timeout": 30}, InvalidRequestError, "^image: "),
        ({"func_name": "i2i"}, InvalidRequestError, "^image / image_base64 / image_link: "),
        ({"lora_path": "a.safetensors"}, NotFoundError, "^lora_path: "),
        ({"use_translate": True, "model": "sd_base"}, InvalidRequestError, "^use_translate: True .* ensemble"),
        ({"model": "nobody"}, NotFoundError, "nobody"),
    ],
)
def test_the_servers_errors(client: Client, options: Options, error: type[ClientError], message: str) -> None:
    with pytest.raises(error, match=message):
        client.generate("x", **options)


def test_an_unknown_task(client: Client) -> None:
    with pytest.raises(NotFoundError, match="nothing-like-it"):
        client.progress("nothing-like-it")
    with pytest.raises(NotFoundError, match="nothing-like-it"):
        client.cancel("nothing-like-it")


def test_progress_in_the_background(client: Client) -> None:
    job = client.submit("a red apple", image_num=2, steps=30, width=64, height=64)
    seen: list[Progress] = []
    while not job.wait(0.05):
        seen.append(job.status())
    assert len(job.result().images) == 2
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert len(set(steps)) > 2, "the steps can be watched"
    assert {progress.steps for progress in seen} <= {0, 60}


def test_a_preview(client: Client) -> None:
    job = client.submit("a red apple", **LONG)
    until(lambda: state_of(client, job.task_id) is JobState.RUNNING)
    until(lambda: client.progress(job.task_id, preview=True).preview is not None)
    preview = client.progress(job.task_id).preview
    assert preview is not None
    assert preview.format == "jpeg"
    job.cancel()


def test_cancel_a_job(client: Client) -> None:
    job = client.submit("a red apple", **LONG)
    until(lambda: state_of(client, job.task_id) is JobState.RUNNING)
    assert job.cancel()
    with pytest.raises(CancelledError):
        job.result(WITHIN)
    until(lambda: state_of(client, job.task_id) is JobState.CANCELLED)


def test_somebody_else_cancels_a_job(client: Client, triton: RunningTriton) -> None:
    job = client.submit("a red apple", **LONG)
    until(lambda: state_of(client, job.task_id) is JobState.RUNNING)
    with Client(triton.http_url) as other:
        assert other.cancel(job.task_id).task_id == job.task_id
    with pytest.raises(CancelledError, match="cancelled"):
        job.result(WITHIN)


def test_cancel_at_once(client: Client) -> None:
    jobs = [client.submit("a red apple", **LONG) for _ in range(4)]
    # Those that had not been sent yet never arrive.
    expected = {job.task_id: JobState.CANCELLED if job.cancel() else None for job in jobs}
    for job in jobs:
        with pytest.raises(CancelledError):
            job.result(WITHIN)
    until(lambda: {job.task_id: state_of(client, job.task_id) for job in jobs} == expected)


def test_a_job_whose_time_is_over_is_ended_on_the_server(client: Client, url: str) -> None:
    with Client(url, timeout=1.0) as impatient:
        with pytest.raises(RequestTimeoutError):
            impatient.generate("a red apple", task_id="impatient", **LONG)
        until(lambda: state_of(impatient, "impatient") is JobState.CANCELLED)
    # Not by the impatient one: on a loaded machine even this takes more than a second.
    client.generate("a red apple", task_id="impatient-no-more", steps=1, width=64, height=64)


def test_threads_share_a_client(client: Client) -> None:
    def draw(seed: int) -> int:
        return client.generate("a red apple", seed=seed, **SMALL).seed

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, range(24))) == list(range(24))


def run(*arguments: str, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "triton_diffusers_client", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "TRITON_DIFFUSERS_URL": url},
        timeout=WITHIN,
        check=False,
    )


def test_the_command_line(triton: RunningTriton, tmp_path: Path) -> None:
    url = urls_of(triton)["grpc"]
    drawn = run("generate", "a red apple", "-o", "apple.jpg", "--steps=2", "--size=64x48", url=url, folder=tmp_path)
    assert (drawn.returncode, drawn.stdout) == (0, "apple.jpg\n")
    assert "1 image in " in drawn.stderr
    assert "\r" not in drawn.stderr, "no bar where there is no terminal"
    assert (tmp_path / "apple.jpg").read_bytes().startswith(b"\xff\xd8")

    several = run(
        "generate", "x", "--steps=2", "--size=64x64", "--image-num=2", "--seed=7", "--json", url=url, folder=tmp_path
    )
    answer = json.loads(several.stdout)
    assert answer["seed"] == "7"
    assert answer["images"] == [f"{answer['task_id']}-{number}.png" for number in (1, 2)]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in answer["images"])

    assert "succeeded" in run("progress", answer["task_id"], url=url, folder=tmp_path).stdout
    assert "had ended" in run("cancel", answer["task_id"], url=url, folder=tmp_path).stdout
    table = run("jobs", url=url, folder=tmp_path).stdout.splitlines()
    assert table[0].split() == ["TASK", "MODEL", "STATE", "STEPS", "IMAGES", "SECONDS", "ERROR"]
    assert any(line.startswith(answer["task_id"]) for line in table)
    listed = json.loads(run("jobs", "--json", url=url, folder=tmp_path).stdout)
    assert answer["task_id"] in [job["task_id"] for job in listed]


def test_the_command_line_says_what_is_wrong(triton: RunningTriton, tmp_path: Path) -> None:
    url = triton.http_url
    refused = run("generate", "x", "--steps=-1", url=url, folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith("triton-diffusers-client: steps: -1 is invalid")
    assert run("cancel", "nothing-like-it", url=url, folder=tmp_path).returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_the_job(
    client: Client, triton: RunningTriton, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    task_id = f"interrupted-{tmp_path.name}"
    process = subprocess.Popen(
        [sys.executable, "-m", "triton_diffusers_client", "generate", "x", "--steps=150", "--image-num=8",
         "--size=128x128", f"--task-id={task_id}", f"--url={triton.http_url}"],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    until(lambda: state_of(client, task_id) is JobState.RUNNING)
    process.send_signal(number)
    _, said = process.communicate(timeout=WITHIN)
    assert process.returncode == code
    assert said == f"interrupted; cancelled job {task_id}\n"
    until(lambda: state_of(client, task_id) is JobState.CANCELLED)
    assert not list(tmp_path.iterdir())


def test_a_program_that_ends_cancels_its_jobs(client: Client, url: str, tmp_path: Path) -> None:
    task_id = f"left-{tmp_path.name}"
    program = (
        "import sys, time, triton_diffusers_client as c\n"
        f"client = c.Client({url!r})\n"
        f"job = client.submit('x', task_id={task_id!r}, steps=150, image_num=8, width=128, height=128)\n"
        "while job.status().state != 'running': time.sleep(0.05)\n"
        "sys.exit(3)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=WITHIN, check=False).returncode == 3
    until(lambda: state_of(client, task_id) is JobState.CANCELLED)


def test_a_program_that_is_killed_leaves_a_job_that_its_timeout_ends(client: Client, url: str, tmp_path: Path) -> None:
    task_id = f"killed-{tmp_path.name}"
    program = (
        "import os, time, triton_diffusers_client as c\n"
        f"client = c.Client({url!r}, timeout=3)\n"
        f"job = client.submit('x', task_id={task_id!r}, steps=150, image_num=8, width=192, height=192)\n"
        f"while {task_id!r} not in [found.task_id for found in client.jobs()]: time.sleep(0.05)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=WITHIN, check=False).returncode == -signal.SIGKILL
    until(lambda: state_of(client, task_id) is JobState.CANCELLED)
    assert "its timeout of " in client.progress(task_id).error_msg
