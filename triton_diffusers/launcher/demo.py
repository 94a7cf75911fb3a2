"""``triton-diffusers demo``: start a server, have one image generated, stop the server."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from triton_diffusers.launcher.errors import DemoFailed
from triton_diffusers.launcher.options import LEFT_OUT
from triton_diffusers.launcher.repository import Repository
from triton_diffusers.util.process import attached

_CLIENT = "triton_diffusers_client"
_TICK = 0.1  # seconds


def demo(*, model_dir: str, model_repository: Path, prompt: str, output: Path) -> Path:
    """Start a server on free ports, have the client generate ``prompt`` into ``output``, stop; return the file.

    Raises:
        BadRepository: there is no model repository.
        DemoFailed: the client is not installed, the server did not start, or nothing was drawn; the message says why.
    """
    if importlib.util.find_spec(_CLIENT) is None:
        raise DemoFailed("the client is not installed; install it with: pip install ./client")
    model = _drawing_model(model_repository)
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        command = [
            sys.executable, "-m", "triton_diffusers", "serve", "--http-port=0", "--grpc-port=0", "--metrics-port=0",
            "--func-name=base", f"--model-dir={model_dir}", f"--model-repository={model_repository}",
        ]  # fmt: skip
        with log.open("wb") as opened:
            server = subprocess.Popen(  # noqa: S603 - our own command
                attached(command, death_signal=signal.SIGTERM),
                stdout=opened,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TRITON_DIFFUSERS_RUNTIME_DIR": place, "TRITON_DIFFUSERS_STORE": ""},
                start_new_session=True,  # Ctrl-C is ours, and stops the server below
            )
        try:
            url = _wait_until_ready(server, Path(place) / "endpoints.json", log)
            _draw(url, model, prompt, output)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    return output.absolute()


def _drawing_model(model_repository: Path) -> str:
    for model in Repository.read(model_repository).without(LEFT_OUT["base"]).entrances:
        if "prompt" in model.required:
            return model.name
    raise DemoFailed(f"no model in {model_repository} takes a prompt")


def _wait_until_ready(server: subprocess.Popen[bytes], endpoints: Path, log: Path) -> str:
    while not endpoints.exists():
        if server.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise DemoFailed(f"the server did not start: {last.removeprefix('triton-diffusers: ')}")
        time.sleep(_TICK)
    return str(json.loads(endpoints.read_text(encoding="utf-8"))["http"])


def _draw(url: str, model: str, prompt: str, output: Path) -> None:
    """Call the client's command, with its progress bar on our terminal."""
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", _CLIENT, "generate", prompt, f"--output={output}", f"--url={url}", f"--model={model}",
    ]  # fmt: skip
    drawn = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603 - our own command
    if drawn.returncode:
        raise DemoFailed("the server did not draw; the line above says why")
