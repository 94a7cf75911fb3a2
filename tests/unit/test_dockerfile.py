"""The image cannot be built in a test; what it is made of can be looked at."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from triton_diffusers import cli
from triton_diffusers.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_everything_that_is_copied_is_there() -> None:
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.+)$", DOCKERFILE, re.M)]
    assert copied
    assert not [source for sources in copied for source in sources if not (ROOT / source).exists()]


def test_entry_point_is_a_command_of_ours() -> None:
    words = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.M)[0])
    assert words[0] == "triton-diffusers"
    chosen = cli.make_parser().parse_args(words[1:])
    assert (chosen.command, chosen.host) == ("serve", "0.0.0.0")
    assert f"COPY model_repository {chosen.model_repository.name}" in DOCKERFILE
    assert f"WORKDIR {chosen.model_repository.parent}" in DOCKERFILE


def test_variables_are_settings() -> None:
    variables = re.findall(rf"{PREFIX}(\w+)=", DOCKERFILE)
    assert variables
    assert all(name.lower() in Settings.model_fields for name in variables)


def test_everything_that_a_server_can_need_is_installed() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    (installed,) = re.findall(r"'\.\[(.+)\]'", DOCKERFILE)
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
