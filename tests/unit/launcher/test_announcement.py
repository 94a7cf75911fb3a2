"""The announcement of a server that is ready."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from triton_diffusers.launcher.announcement import announce
from triton_diffusers.launcher.options import ServeOptions
from triton_diffusers.launcher.ports import Ports
from triton_diffusers.launcher.repository import Repository
from triton_diffusers.launcher.workspace import Workspace

ROOT = Path(__file__).parents[3]
PORTS = Ports(http=1, grpc=2, metrics=3, gateway=4)


def announced(ports: Ports, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, object]]:
    repository = Repository.read(ROOT / "model_repository")
    with Workspace.create(tmp_path) as workspace:
        options = ServeOptions(model_repository=tmp_path, model_dir="m", store="")
        announce(options, ports, repository, workspace, 1.0)
        return capsys.readouterr().out, json.loads((workspace.runtime_dir / "endpoints.json").read_text())


def test_the_gateway_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, endpoints = announced(PORTS, tmp_path, capsys)
    assert endpoints["gateway"] == "http://127.0.0.1:4"
    assert """  curl 'http://127.0.0.1:4/api/jobs?wait=60' -d '{"prompt": "a red apple"}'""" in text
    assert "  gateway http://127.0.0.1:4, HTTP http://127.0.0.1:1, gRPC 127.0.0.1:2, metrics" in text


def test_no_gateway_is_named_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, endpoints = announced(replace(PORTS, gateway=None), tmp_path, capsys)
    assert "gateway" not in endpoints
    assert "gateway" not in text
