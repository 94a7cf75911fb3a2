"""A server on a real Triton starts: it says where it is, what it runs, or in one line why not."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.integration.conftest import RunningTriton
from tests.integration.serve.request import call, generate, infer_over_grpc, pid_of
from tests.waiting import WITHIN
from triton_diffusers.cli import main as cli


def test_says_where_to_call_and_is_there(start: Callable[..., RunningTriton], model_dir: Path) -> None:
    server = start("--", "--id=a-name-of-its-own", env={"TRITON_DIFFUSERS_SOMETHING_ELSE": "as it is"})
    assert call(server, "/v2/health/ready")[0] == 200
    assert infer_over_grpc(server, "chain", 0.0)[0] == "OK"
    address = urlsplit(server.metrics_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=WITHIN)
    connection.request("GET", address.path)
    assert b"nv_inference_count" in connection.getresponse().read()
    connection.close()
    said = server.log_text()
    for place in (f"{server.http_url}/v2/models/chain/generate", server.grpc_url, server.metrics_url):
        assert place in said
    assert "/v2/models/steps/generate" not in said, "steps is called by chain, not by people"
    assert call(server, "/v2")[1]["name"] == "a-name-of-its-own", "what is after -- reaches tritonserver"

    # The model processes are this Python, with these settings.
    status, answer = generate(server, "mirror", sleep=0)
    assert status == 200
    seen = json.loads(answer["seen"])
    assert seen["prefix"] == sys.prefix
    assert seen["package"] == cli.__file__
    assert seen["variables"] == {
        "TRITON_DIFFUSERS_MODEL_DIR": str(model_dir),
        "TRITON_DIFFUSERS_RUNTIME_DIR": str(server.runtime_dir),
        "TRITON_DIFFUSERS_STORE": str(server.log.parent / "results"),
        "TRITON_DIFFUSERS_TRANSLATOR_DIR": str(Path(cli.__file__).resolve().parents[2] / "models" / "translator"),
        "TRITON_DIFFUSERS_HEADERS_FORWARDED": "true",
        "TRITON_DIFFUSERS_SOMETHING_ELSE": "as it is",
        "TRITON_DIFFUSERS_CACHE_DIR": os.environ["TRITON_DIFFUSERS_CACHE_DIR"],  # of the tests
    }


def test_system_tritonserver_comes_first(start: Callable[..., RunningTriton], tmp_path: Path) -> None:
    import pytriton

    wheel = Path(str(pytriton.__file__)).parent / "tritonserver"
    home = tmp_path / "system"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "tritonserver").symlink_to(wheel / "bin" / "tritonserver")
    backend = home / "backends" / "python"
    backend.mkdir(parents=True)
    for file in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / file).symlink_to(wheel / "backends" / "python" / file)
    stub = "triton_python_backend_stub"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (backend / stub).symlink_to(wheel / "python_backend_stubs" / version / stub)
    server = start(env={"PATH": f"{home / 'bin'}:{os.environ['PATH']}"})
    assert f"starting tritonserver (system, {home}/bin/tritonserver)" in server.log_text()
    assert pid_of(server, "chain")


def test_model_that_cannot_be_loaded_is_one_clear_line(start: Callable[..., RunningTriton], repository: Path) -> None:
    (repository / "mirror" / "broken").touch()
    server = start(wait=False)
    assert server.process.wait(timeout=WITHIN) == 2
    assert "triton-diffusers: tritonserver did not start: model mirror failed to load: " in server.log_text()
    assert "told to be broken" in server.log_text().splitlines()[-1]
