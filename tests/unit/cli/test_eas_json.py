"""Deployments on PAI-EAS: their form, and that our own command line takes the command in them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from triton_diffusers.cli import main as cli
from triton_diffusers.cli.reference_flags import Mounts, read
from triton_diffusers.gateway.server import is_open
from triton_diffusers.gateway.settings import GatewaySettings

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((ROOT / "tests" / "data" / "eas_deployment.schema.json").read_text(encoding="utf-8"))
REQUIRED = (
    *("--name", "diffuser_base_ch", "--image", "registry.example.com/me/triton-diffusers:1"),
    *("--model", "oss://bucket/models/mine/", "--results", "oss://bucket/images/", "--region", "hangzhou"),
)
# The deployment that the reference's documents show.
REFERENCE: dict[str, Any] = {
    "cloud": {"computing": {"instance_type": "ml.gu7i.c8m30.1-gu30"}},
    "containers": [
        {
            "command": "python /home/pai/app.py  --func_name base --oss_save_dir oss://bucket/0605/ --region hangzhou",
            "image": "eas-registry-vpc.example.com/pai-eas/diffuser-inference:2.2.1",
        }
    ],
    "features": {"eas.aliyun.com/extra-ephemeral-storage": "100Gi"},
    "metadata": {
        "cpu": 8,
        "gpu": 1,
        "instance": 1,
        "memory": 30000,
        "name": "diffuser_base_ch_async",
        "rpc": {"keepalive": 500000},
        "type": "Async",
    },
    "name": "diffuser_base_ch_async",
    "storage": [
        {"mount_path": "/oss", "oss": {"path": "oss://bucket/0605/base/"}},
        {"mount_path": "/result", "oss": {"path": "oss://bucket/0605/"}},
    ],
}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["eas-json", *REQUIRED, *words]) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    return dict(document)


def test_the_schema_is_that_of_the_references_deployment() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(REFERENCE, SCHEMA)
    for path, value in ((("metadata", "type"), "async"), (("metadata", "cpu"), "8"), (("storage",), [{"oss": {}}])):
        changed = json.loads(json.dumps(REFERENCE))
        place = changed
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed, SCHEMA)


def test_both_modes_differ_by_their_type_alone(capsys: pytest.CaptureFixture[str]) -> None:
    synchronous, asynchronous = printed(capsys), printed(capsys, "--async")
    assert asynchronous["metadata"].pop("type") == "Async"
    assert asynchronous == synchronous
    assert synchronous["storage"] == [
        {"mount_path": "/oss", "oss": {"path": "oss://bucket/models/mine/"}},
        {"mount_path": "/result", "oss": {"path": "oss://bucket/images/"}},
    ]


def test_options_are_in_the_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "--func_name controlnet --use_blade --use_translate --instance-type ml.gu7i.c8m30.1-gu30"
        " --instances 3 --cpu 4 --gpu 0 --memory 16000"
    )
    document = printed(capsys, *words.split())
    assert document["cloud"] == REFERENCE["cloud"]
    metadata = document["metadata"]
    assert [metadata[name] for name in ("instance", "cpu", "gpu", "memory")] == [3, 4, 0, 16000]


@pytest.mark.parametrize("func_name", ["base", "controlnet"])
def test_the_command_starts_this_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, func_name: str
) -> None:
    (container,) = printed(capsys, "--func_name", func_name, "--use_blade")["containers"]
    env, setting, program, *words = shlex.split(container["command"])
    assert (env, program) == ("env", "triton-diffusers")
    name, _, value = setting.partition("=")
    monkeypatch.setenv(name, value)
    assert is_open("0.0.0.0", GatewaySettings.read())
    chosen = cli.make_parser().parse_args(words)
    assert (chosen.command, chosen.host, chosen.gateway_port) == ("serve", "0.0.0.0", container["port"])
    assert chosen.func_name == func_name
    (tmp_path / "oss" / "base_model").mkdir(parents=True)
    (tmp_path / "result").mkdir()
    deployment = read(chosen, {}, Mounts(tmp_path / "oss", tmp_path / "result"))
    assert (deployment.model_dir, deployment.store) == (str(tmp_path / "oss"), str(tmp_path / "result"))
    assert deployment.settings["TRITON_DIFFUSERS_STORE_LOCATION"] == "oss://bucket/images"
    assert str(chosen.model_repository) in (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--name", "Service", "'Service' is invalid: lower-case letters"),
        ("--model", "/models", "'/models' is invalid: expected oss://bucket/path"),
        ("--cpu", "0", "'0' is invalid: must be above 0"),
        ("--gpu", "one", "'one' is invalid: must be a whole number"),
        ("--func_name", "all", "invalid choice: 'all'"),
    ],
)
def test_invalid_options_are_refused(capsys: pytest.CaptureFixture[str], option: str, value: str, said: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["eas-json", *REQUIRED, option, value])
    assert said in capsys.readouterr().err


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "eas.md").read_text(encoding="utf-8")
    command = re.search(r"^triton-diffusers (eas-json(?:.*\\\n)*.*)$", page, re.MULTILINE)
    shown = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert command is not None
    assert shown is not None
    assert cli.main(shlex.split(command[1].replace("\\\n", " "))) == 0
    assert json.loads(shown[1]) == json.loads(capsys.readouterr().out)
