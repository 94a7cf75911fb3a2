"""``triton-diffusers demo``: the whole way once, from no server to a picture on the disk, and back to no server."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from triton_diffusers.server.errors import DemoFailed
from triton_diffusers.server.repository import Repository
from triton_diffusers.server.tritonserver import die_with

_TICK = 0.1  # seconds
_ANSWER_WITHIN = 1800.0  # seconds; a large model on a small machine


def demo(*, model_dir: Path, model_repository: Path, prompt: str, output: Path) -> Path:
    """Start a server on free ports, have ``prompt`` drawn into the file ``output``, stop the server; the file.

    Raises:
        BadRepository: there is no model repository.
        DemoFailed: the server did not start, or did not draw; the message ends with its last words.
    """
    model = _drawing_model(model_repository)
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        command = [
            sys.executable, "-m", "triton_diffusers", "serve", "--http-port=0", "--grpc-port=0", "--metrics-port=0",
            f"--model-dir={model_dir}", f"--model-repository={model_repository}", f"--result-dir={place}",
        ]  # fmt: skip
        with log.open("wb") as opened:
            server = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdout=opened,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TRITON_DIFFUSERS_RUNTIME_DIR": place},
                start_new_session=True,  # Ctrl-C is ours, and stops the server below
                preexec_fn=die_with(os.getpid()),
            )
        try:
            url = _wait_until_ready(server, Path(place) / "endpoints.json", log)
            picture = _draw(url, model, prompt)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(picture)
    return output.absolute()


def _drawing_model(model_repository: Path) -> str:
    for model in Repository.read(model_repository).entrances:
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


def _draw(url: str, model: str, prompt: str) -> bytes:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_ANSWER_WITHIN)
    try:
        request = {"task_id": "demo", "prompt": prompt, "use_base64": True}
        connection.request("POST", f"/v2/models/{model}/generate", json.dumps(request))
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DemoFailed(f"the server did not answer: {error}") from error
    finally:
        connection.close()
    if "error" in answer:
        raise DemoFailed(f"the server did not draw: {answer['error']}")
    pictures = answer["images_base64"]  # Triton's JSON has a list of one as its only item
    return base64.urlsafe_b64decode(pictures if isinstance(pictures, str) else pictures[0])
