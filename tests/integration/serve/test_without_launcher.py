"""``tritonserver --model-repository`` alone: the models start their engine themselves."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from tests.integration.calls import png
from tests.integration.conftest import ROOT
from tests.integration.serve.processes import ENGINE, children, command_line, is_gone
from tests.waiting import WITHIN, until
from triton_diffusers.launcher.ports import choose_ports
from triton_diffusers.launcher.runtime import find_runtime

MODELS = ("sd_base", "sd_controlnet")
CONTROL = base64.b64encode(png(Image.linear_gradient("L").convert("RGB"))).decode()


@dataclass
class BareTriton:
    """A started ``tritonserver``."""

    process: subprocess.Popen[bytes]
    url: str

    def post(self, path: str, body: object) -> dict[str, object]:
        request = Request(f"{self.url}/v2/{path}", json.dumps(body).encode())
        with urlopen(request, timeout=WITHIN) as reply:
            return dict(json.loads(reply.read() or b"{}"))

    def draws(self, model: str) -> bool:
        """Return True if a model makes an image."""
        body = {"task_id": "bare", "prompt": "a red apple", "steps": 1, "width": 64, "height": 64}
        if model == "sd_controlnet":
            body["control_image_base64"] = CONTROL
        return self.post(f"models/{model}/generate", body)["success"] == 1

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/v2/health/ready", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def stub(self, model: str) -> int | None:
        """Return the process of a model."""
        found = [pid for pid in children(self.process.pid) if any(f"/{model}/1/" in word for word in command_line(pid))]
        return found[0] if found else None

    def owner(self) -> tuple[str, int] | None:
        """Return the model that has started the engine, and the engine's process."""
        for model in MODELS:
            for pid in children(self.stub(model) or 0):
                if ENGINE in command_line(pid):
                    return model, pid
        return None


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[BareTriton]:
    (tmp_path / "runtime").mkdir()
    runtime = find_runtime(tmp_path / "runtime")
    ports = choose_ports("127.0.0.1", http=0, grpc=0, metrics=0)
    command = [
        str(runtime.binary),
        f"--model-repository={ROOT / 'model_repository'}",
        f"--backend-directory={runtime.backends}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in MODELS),
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        "--exit-timeout-secs=5",
    ]
    env = {
        **runtime.environment,
        "TRITON_DIFFUSERS_MODEL_DIR": str(ROOT / "models" / "emoji"),
        "TRITON_DIFFUSERS_RUNTIME_DIR": str(tmp_path / "meeting-place"),
        "TRITON_DIFFUSERS_STORE": str(tmp_path / "results"),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    started = BareTriton(process, f"http://127.0.0.1:{ports.http}")
    try:
        until(started.is_ready, "tritonserver is ready")
        yield started
    finally:
        process.terminate()
        try:
            process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print((tmp_path / "log").read_text(errors="replace")[-8000:])  # pytest shows it if the test fails


def test_a_model_starts_the_engine_and_another_one_takes_over(bare: BareTriton) -> None:
    started = until(bare.owner, "a model has started the engine")
    owner, engine = started
    other = next(model for model in MODELS if model != owner)
    assert bare.draws(owner)

    bare.post(f"repository/models/{owner}/unload", {})
    until(lambda: is_gone(engine), "the engine ends with the model that started it")
    owner_now, engine = until(bare.owner, "the other model has started an engine")
    assert owner_now == other
    assert bare.draws(other)

    bare.post(f"repository/models/{owner}/load", {})
    assert bare.draws(owner)
    assert bare.owner() == (other, engine)
    process = bare.stub(other)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    until(lambda: is_gone(engine), "the engine ends with the process that started it")
    assert bare.draws(owner)
    assert (bare.owner() or ("", 0))[0] == owner

    processes = [bare.process.pid, *children(bare.process.pid), *(bare.owner() or ("", 0))[1:]]
    bare.process.terminate()
    until(lambda: all(map(is_gone, processes)), "everything ends with the server")
