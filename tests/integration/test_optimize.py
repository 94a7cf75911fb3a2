"""A server that builds a compiled engine while it serves, and changes to it; and what happens if it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.controlnet_files import random_controlnet, save_folder
from tests.integration.calls import Calls, pixels, png, psnr, small
from tests.integration.conftest import ROOT, RunningTriton, TritonStarter
from tests.waiting import until
from triton_diffusers.compile.options import MIN_PSNR, PSNR_SPREAD

BUILT_WITHIN = 3000.0  # seconds; the build has a tenth of the time on cores that the requests fill
SENDERS = 4
# Requests of the models that draw.
ASKED: Mapping[str, Mapping[str, Any]] = {
    "sd_base": {},
    "sd_controlnet": {"image": png(Image.linear_gradient("L").convert("RGB").resize((64, 64)))},
}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Return the emoji model in a folder of its own: a build writes into it."""
    copy = tmp_path / "emoji"
    shutil.copytree(ROOT / "models" / "emoji", copy, ignore=shutil.ignore_patterns("optimized_model"))
    return copy


@pytest.fixture
def started(start_triton: TritonStarter) -> Iterator[Callable[..., Calls]]:
    """Return a function that starts a server and gives its callers."""
    opened: list[Calls] = []

    def start(model_dir: Path, *args: str, **settings: str) -> Calls:
        env = {f"TRITON_DIFFUSERS_{name.upper()}": value for name, value in settings.items()}
        opened.append(Calls(start_triton(env=env, model_dir=model_dir, args=args)))
        return opened[-1]

    yield start
    for calls in opened:
        calls.close()


def build_processes(server: RunningTriton) -> list[int]:
    """Return the processes that build or wait for a build, found by the folder that they build for."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                mine = str(server.runtime_dir).encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
            if words[1:4] == [b"-m", b"triton_diffusers", b"build"] and mine:
                found.append(int(entry.name))
    return found


def build_process(server: RunningTriton) -> int:
    """Return the process that builds, 0 if there is none."""
    return next(iter(build_processes(server)), 0)


def optimizing(calls: Calls) -> dict[str, Any]:
    """Return the only build's entry among the jobs; an empty state if there is none."""
    found = [job for job in calls.jobs() if job["task_id"].startswith("optimize-")]
    assert len(found) <= 1, found
    return found[0] if found else {"state": ""}


def state(calls: Calls) -> str:
    prefix = 'sd_optimizer_state{state="'
    found = [name for name, value in calls.metrics().items() if name.startswith(prefix) and value == 1]
    # One after the other is handed over, so that there may be two or none for a moment.
    return found[0].removeprefix(prefix).removesuffix('"}') if len(found) == 1 else ""


def train_on(model_dir: Path) -> None:
    """Give the UNet other weights."""
    file = model_dir / "base_model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_out.bias"] = weights["conv_out.bias"] + 0.25
    save_file(weights, file.with_suffix(".new"), {"format": "pt"})
    file.with_suffix(".new").replace(file)


class Load:
    """Requests from four senders, one after the other each, until it is stopped; and what became of each."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._enough = threading.Event()
        self._pool = ThreadPoolExecutor(SENDERS)
        self.replies: list[tuple[float, dict[str, Any]]] = []  # when it came (monotonic seconds), and what
        self.seconds: list[tuple[float, float]] = []  # when it came, and how long it took
        self._senders = [self._pool.submit(self._send, number) for number in range(SENDERS)]

    def _send(self, number: int) -> None:
        while not self._enough.is_set():
            began = time.monotonic()
            reply = self._calls.grpc(**small(steps=8, width=128, height=128, seed=str(number)))
            ended = time.monotonic()
            self.replies.append((ended, reply))
            self.seconds.append((ended, ended - began))

    def stop(self) -> None:
        """Let the last ones end; raises what any request was answered with but an image."""
        self._enough.set()
        for sender in self._senders:
            sender.result()
        self._pool.shutdown()


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_built_under_load_swapped_in_and_found_at_the_next_start(
    started: Callable[..., Calls], model_dir: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    pytest.importorskip("openvino")
    calls = started(model_dir, optimize="openvino")
    load = Load(calls)
    begun = building = time.monotonic()
    while (now := state(calls)) not in ("swapped", "failed") and time.monotonic() < begun + BUILT_WITHIN:
        building = time.monotonic() if now == "building" else building
        time.sleep(0.5)
    swapped = time.monotonic()
    until(lambda: sum(came > swapped for came, _ in list(load.seconds)) >= 4 * SENDERS)
    load.stop()
    assert now == "swapped", optimizing(calls)
    assert optimizing(calls)["state"] == "succeeded"
    made_by = [reply["use_blade"] for _, reply in load.replies]
    assert all(reply["success"] == 1 for _, reply in load.replies)
    assert made_by[0] is False
    assert made_by[-1] is True
    assert all(made_by[-2 * SENDERS :])
    before = max(seconds for came, seconds in load.seconds if came <= building)
    meanwhile = max(seconds for came, seconds in load.seconds if came > building and came - seconds < swapped)
    record_testsuite_property("requests", len(load.seconds))
    record_testsuite_property("slowest before the swap, seconds", round(before, 2))
    record_testsuite_property("slowest during the swap, seconds", round(meanwhile, 2))
    assert meanwhile <= 2 * before, "nobody waits for an engine that is being loaded"
    (name,) = (folder.name for folder in (model_dir / "optimized_model").glob("openvino-*"))
    metrics = calls.metrics()
    assert metrics['sd_engine_serves{engine="eager"}'] == 0
    assert metrics[f'sd_engine_serves{{engine="{name}"}}'] == 1

    calls.server.stop()  # it has mapped the files
    # Nothing is to be built: what is there is used. By its name, since its figures were taken beside the requests.
    again = started(model_dir, engine="openvino")
    assert again.grpc(**small())["use_blade"] is True
    assert again.metrics()[f'sd_engine_serves{{engine="{name}"}}'] == 1
    assert state(again) == "idle"

    again.server.stop()
    weights = max((model_dir / "optimized_model" / name).rglob("*.bin"), key=lambda path: path.stat().st_size)
    weights.write_bytes(bytes(weights.stat().st_size))
    spoilt = started(model_dir, engine="openvino")
    assert spoilt.grpc(**small())["use_blade"] is False
    assert f"not used: {name} is damaged" in spoilt.server.log_text()

    weights.unlink()
    eager = started(model_dir, engine="eager")
    assert eager.grpc(**small())["use_blade"] is False
    assert "not used" not in eager.server.log_text()

    spoilt.server.stop()
    eager.server.stop()
    train_on(model_dir)
    changed = started(model_dir, engine="openvino")
    assert changed.grpc(**small())["use_blade"] is False
    assert f"not used: {name} was built from another model" in changed.server.log_text()


@pytest.mark.heavy
@pytest.mark.timeout(2 * BUILT_WITHIN)
def test_both_models_change_to_what_one_build_has_made(started: Callable[..., Calls], model_dir: Path) -> None:
    """If the build is killed, eager serves on, and the next server's build resumes it."""
    pytest.importorskip("openvino")
    config = UNet2DConditionModel.load_config(model_dir / "base_model" / "unet")
    save_folder(random_controlnet(config, 1), model_dir / "controlnet")

    def reply(calls: Calls, model: str, **changes: Any) -> dict[str, Any]:
        return calls.grpc(model, **small(**ASKED[model], **changes))

    killed = started(model_dir, "--func-name=all", optimize="openvino")
    eagerly = reply(killed, "sd_controlnet")
    assert eagerly["use_blade"] is False
    until(
        lambda: list((model_dir / "optimized_model" / ".work").glob("*/complete/text_encoder.json")),
        within=BUILT_WITHIN,
    )
    (build,) = build_processes(killed.server)
    os.kill(build, signal.SIGKILL)
    until(lambda: optimizing(killed)["state"] == "failed")
    assert "killed" in optimizing(killed)["error_msg"]
    assert not any(reply(killed, model)["use_blade"] for model in ASKED)
    assert killed.server.stop() == 0

    calls = started(model_dir, "--func-name=all", optimize="openvino")
    made_by: dict[str, list[bool]] = {model: [] for model in ASKED}
    until(lambda: optimizing(calls)["state"])
    deadline = time.monotonic() + BUILT_WITHIN
    while optimizing(calls)["state"] == "running" and time.monotonic() < deadline:
        for model, made in made_by.items():
            made.append(reply(calls, model)["use_blade"])
        time.sleep(1)
    assert optimizing(calls)["state"] == "succeeded", optimizing(calls)
    for model, made in made_by.items():
        made.append(reply(calls, model)["use_blade"])
        assert (made[0], made[-1]) == (False, True)
        assert made == sorted(made)
    assert "resuming an earlier build: text_encoder" in calls.server.log_text()

    (artifact,) = (model_dir / "optimized_model").glob("openvino-*")
    precision = artifact.name.partition("-")[2]
    (like,) = reply(calls, "sd_controlnet")["images"]
    (unled,) = reply(calls, "sd_controlnet", control_scale=[0.0])["images"]
    expected = pixels(eagerly["images"][0])
    assert psnr(pixels(like), expected) >= MIN_PSNR[precision] - PSNR_SPREAD[precision]
    assert psnr(pixels(unled), expected) < psnr(pixels(like), expected)


def test_a_build_that_is_killed_leaves_eager_serving_and_one_reason(
    started: Callable[..., Calls], model_dir: Path
) -> None:
    calls = started(model_dir, optimize="openvino")
    until(lambda: build_process(calls.server))
    os.kill(build_process(calls.server), signal.SIGKILL)
    until(lambda: state(calls) == "failed")
    job = optimizing(calls)
    assert "killed" in job["error_msg"]
    assert calls.grpc(**small())["use_blade"] is False
    log = calls.server.log_text()
    assert log.count("openvino is not used, eager continues to serve: ") == 1
    assert job["error_msg"] in log


def test_a_build_ends_with_its_server(started: Callable[..., Calls], model_dir: Path) -> None:
    calls = started(model_dir, optimize="openvino")
    until(lambda: build_process(calls.server))
    pid = build_process(calls.server)
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, calls.server.process.pid)
    assert calls.server.stop() == 0
    assert not Path(f"/proc/{pid}").exists()


def test_a_build_ends_with_an_engine_process_that_is_killed(started: Callable[..., Calls], model_dir: Path) -> None:
    calls = started(model_dir, optimize="openvino")
    until(lambda: build_process(calls.server))
    pid = build_process(calls.server)
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
