"""The image cannot be built in a test; what it is made of can be looked at."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from triton_diffusers.cli import main as cli
from triton_diffusers.launcher import tritonserver
from triton_diffusers.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
# Continued lines are one.
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
_DOCKER_STOPS_WITHIN = 10  # seconds


def test_everything_that_is_copied_is_there() -> None:
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.+)$", DOCKERFILE, re.M)]
    assert copied
    assert not [source for sources in copied for source in sources if not (ROOT / source).exists()]


def test_entry_point_is_a_command_of_ours() -> None:
    words = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.M)[0])
    assert words[:3] == ["tini", "--", "triton-diffusers"]
    chosen = cli.make_parser().parse_args(words[3:])
    assert (chosen.command, chosen.host) == ("serve", "0.0.0.0")
    assert chosen.exit_timeout + tritonserver._SPARE < _DOCKER_STOPS_WITHIN
    assert f"COPY model_repository {chosen.model_repository.name}" in DOCKERFILE
    assert f"WORKDIR {chosen.model_repository.parent}" in DOCKERFILE


def test_variables_are_settings() -> None:
    variables = re.findall(rf"{PREFIX}(\w+)=", DOCKERFILE)
    assert variables
    assert all(name.lower() in Settings.model_fields for name in variables)


def test_everything_that_a_server_can_need_is_installed() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    (installed,) = re.findall(r"'\.\[([^\]]+)\]'", DOCKERFILE)
    # `server` is for those who have no tritonserver.
    assert set(installed.split(",")) == extras - {"server", "train", "bench", "dev"}


def test_tritonclient_is_installed_without_what_nobody_uses() -> None:
    """Its extra ``all`` brings a placeholder named perf_analyzer, and CUDA bindings."""
    for text in (DOCKERFILE, *((ROOT / path).read_text() for path in ("pyproject.toml", "client/pyproject.toml"))):
        extras = {extra for found in re.findall(r"tritonclient\[(.+?)\]", text) for extra in found.split(",")}
        assert extras <= {"grpc", "http"}


def test_every_package_is_found_by_an_installer() -> None:
    folders = {path.parent for path in (ROOT / "triton_diffusers").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_packages_are_installed_before_the_code_is_copied() -> None:
    packages, code = DOCKERFILE.index("--constraint constraints.txt"), DOCKERFILE.index("COPY triton_diffusers")
    assert packages < code < DOCKERFILE.index("--no-deps .")


def test_container_does_not_run_as_root() -> None:
    user = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.M)
    assert [int(number) > 0 for number in user] == [True]
    assert f"useradd --uid {user[0]} " in DOCKERFILE


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (400, False)])
def test_health_check_asks_whether_the_server_is_ready(status: int, healthy: bool) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        (found,) = re.findall(r"^HEALTHCHECK .* CMD (\[.+\])$", DOCKERFILE, re.M)
        command = json.loads(found.replace(":8000/", f":{server.server_address[1]}/"))
        assert (subprocess.run(command, capture_output=True).returncode == 0) is healthy
        server.shutdown()
    assert asked == ["/v2/health/ready"]


def test_translator_is_converted_with_the_image() -> None:
    (program,) = re.findall(r"^RUN python3 -c '(.+)'$", DOCKERFILE, re.M)
    compile(program, "Dockerfile", "exec")
    assert "load_engine(Settings())" in program
