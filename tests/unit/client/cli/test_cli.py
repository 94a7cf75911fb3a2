"""The command line: what it asks for, where it writes, how it says what is wrong."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from triton_diffusers.api.contract import CONTROL_INPUTS, INPUT_BY_NAME, INPUTS
from triton_diffusers_client import (
    BusyError,
    ConnectionFailedError,
    EncodedImage,
    Generation,
    Image,
    NotFoundError,
    Options,
    RequestTimeoutError,
    ServerError,
)
from triton_diffusers_client.cli import commands
from triton_diffusers_client.cli.generate_arguments import model_of, options_of
from triton_diffusers_client.cli.outputs import control_paths_for, paths_for
from triton_diffusers_client.cli.program import main, make_parser
from triton_diffusers_client.connection import URL_VARIABLE

DOCS = (Path(__file__).parents[4] / "docs" / "client.md").read_text(encoding="utf-8")
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"


def options(*arguments: str) -> dict[str, Any]:
    return dict(options_of(make_parser().parse_args(["generate", "a red apple", *arguments])))


def generation(*images: bytes, controls: int = 0) -> Generation:
    return Generation(
        task_id="a-task",
        seed=1,
        prompt="",
        images=tuple(Image(data, seed=1) for data in images),
        image_url=(),
        oss_url=(),
        is_nsfw=(),
        parameters={},
        use_blade=False,
        profile="exact",
        warnings=(),
        queue_seconds=0.0,
        run_seconds=0.0,
        control_images=(EncodedImage(PNG),) * controls,
    )


def test_missing_arguments_send_no_options() -> None:
    assert options() == {}


def test_arguments_become_options() -> None:
    assert options(
        "--negative-prompt=blur", "--steps=20", "--size=640x480", "--seed=7", "--image-num=2", "--scheduler=Euler a",
        "--cfg-scale=5", "--format=webp", "--task-id=one",
    ) == {
        "negative_prompt": "blur", "steps": 20, "width": 640, "height": 480, "seed": 7, "image_num": 2,
        "scheduler": "Euler a", "cfg_scale": 5.0, "output_format": "webp", "task_id": "one",
    }  # fmt: skip


def test_every_field_of_the_contract_is_reachable() -> None:
    """Files and URLs are sent by fields of their own; in what form images come back is the client's choice."""
    common = (
        "--negative-prompt=blur", "--steps=20", "--size=640x480", "--seed=7", "--image-num=2", "--scheduler=DDIM",
        "--cfg-scale=5", "--format=webp", "--task-id=one", "--clip-skip=2", "--image=http://host/a.png",
        "--resize-mode=pad", "--strength=0.5", "--no-keep-unmasked", "--lora=a:1", "--no-translate", "--profile=fast",
        "--save-dir=mine", "--no-store-images", "--no-embed-metadata", "--safety-action=flag", "--timeout-seconds=9",
        "--controlnet=c", "--process=canny", "--control-scale=1", "--control-start=0.1", "--control-end=0.9",
        "--control-image=http://host/c.png", "--return-control-image", "--quality=80", "--priority=5",
        "--webhook=http://host/hook",
    )  # fmt: skip
    asked = options(*common, "--mask=http://host/m.png", "--mask-channel=alpha") | options(
        *common, "--expand=1,2,3,4", "--expand-type=copy"
    )
    chosen_by_the_client = {"return_images", "use_base64"}
    forms = {f"{name}_{form}" for name in ("image", "mask", "control_image") for form in ("base64", "link")}
    fields = {field.name for field in (*INPUTS, *CONTROL_INPUTS)}
    assert set(asked) == fields - {"prompt"} - chosen_by_the_client - forms | {"priority", "webhook"}
    assert set(asked) <= set(Options.__annotations__)


def test_choices_and_ranges_are_the_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    for option, name in (("format", "output_format"), ("process", "process_func"), ("profile", "profile")):
        for choice in INPUT_BY_NAME[name].choices:
            assert choice in str(options("--image=a.png", f"--{option}={choice}"))
        with pytest.raises(SystemExit, match="2"):
            options(f"--{option}=another")
    with pytest.raises(SystemExit, match="0"):
        main(["generate", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name, text in (
        ("cfg_scale", "{:g} to {:g}"),
        ("denoising_strength", "{:g} to {:g}"),
        ("width", "at least {:g}"),
    ):
        field = INPUT_BY_NAME[name]
        assert text.format(field.minimum, field.maximum) in told


def test_size_stands_for_width_and_height() -> None:
    assert options("--size", "64×32") == options("--width=64", "--height=32") == {"width": 64, "height": 32}
    assert options("--size=64x32", "--height=48") == {"width": 64, "height": 48}


@pytest.mark.parametrize(
    ("arguments", "model", "asked"),
    [
        ([], None, {}),
        (["--translate"], None, {"use_translate": True}),
        (["--translate", "--model=sd_base"], "ensemble", {"use_translate": True}),
        (["--translate", "--model=sd_controlnet"], "ensemble_controlnet", {"use_translate": True}),
        (["--translate", "--model=mine"], "mine", {"use_translate": True}),
        (["--no-translate"], None, {"use_translate": False}),
        (["--no-translate", "--model=ensemble"], "ensemble", {"use_translate": False}),
    ],
)
def test_translate_chooses_the_ensemble(arguments: list[str], model: str | None, asked: dict[str, bool]) -> None:
    args = make_parser().parse_args(["generate", "红苹果", *arguments])
    assert (model_of(args), options_of(args)) == (model, asked)


def test_the_file_name_tells_the_format() -> None:
    assert options("-o", "apple.jpg") == {"output_format": "jpeg"}
    assert options("-o", "apple.WEBP") == {"output_format": "webp"}
    assert options("-o", "apple") == {"output_format": "png"}
    assert options("-o", "apple", "--format=webp") == {"output_format": "webp"}
    assert options("-o", ".", "--format=webp") == {"output_format": "webp"}
    with pytest.raises(ValueError, match="do not go together"):
        options("-o", "apple.jpg", "--format=png")


def test_image_paths_follow_the_output_option(tmp_path: Path) -> None:
    one, two = generation(PNG), generation(JPEG, JPEG)
    assert paths_for(one, None) == [Path("a-task.png")]
    assert paths_for(one, tmp_path) == [tmp_path / "a-task.png"]
    assert paths_for(one, tmp_path / "x.png") == [tmp_path / "x.png"]
    assert paths_for(two, None) == [Path("a-task-1.jpg"), Path("a-task-2.jpg")]
    assert paths_for(two, Path("apple.jpeg")) == [Path("apple-1.jpeg"), Path("apple-2.jpeg")]
    assert paths_for(two, Path("apple")) == [Path("apple-1.jpg"), Path("apple-2.jpg")]


def test_control_image_paths_follow_the_output_option(tmp_path: Path) -> None:
    assert control_paths_for(generation(PNG), None) == []
    one, two = generation(PNG, controls=1), generation(JPEG, JPEG, controls=2)
    assert control_paths_for(one, None) == [Path("a-task-control.png")]
    assert control_paths_for(one, tmp_path) == [tmp_path / "a-task-control.png"]
    assert control_paths_for(two, Path("apple.jpg")) == [Path("apple-control-1.png"), Path("apple-control-2.png")]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["generate"],
        ["generate", "x", "--size=512"],
        ["generate", "x", "--steps=few"],
        ["generate", "x", "--format=gif"],
        ["generate", "x", "--control-scale=much"],
        ["jobs", "--url=ftp://server"],
        ["jobs", "--timeout=0"],
        ["jobs", "--header=no-colon"],
        ["jobs", "--header=content-length: 3"],
        ["jobs", "--header=a: b\nc: d"],
        ["generate", "x", "-o", "missing/apple.png"],
        ["generate", "x", "-o", "missing/"],
        ["generate", "x", "-o", "apple.bmp"],
        ["generate", "x", "-o", "apple.GIF"],
        ["generate", "x", "-o", "apple.avif"],
        ["paint", "x"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_an_unreachable_server_is_one_message(
    unused_port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"127.0.0.1:{unused_port}")
    assert main(["generate", "x"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"triton-diffusers-client: cannot reach 127.0.0.1:{unused_port}: Connection refused",
        f"Is the server running? --url or $TRITON_DIFFUSERS_URL says where (now: 127.0.0.1:{unused_port}).",
    ]


def test_the_package_runs_as_a_module() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "triton_diffusers_client", "--help"], capture_output=True, text=True, check=True
    )
    assert "generate" in shown.stdout


def test_every_option_is_documented() -> None:
    (commands,) = (action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    flags = {
        flag for parser in commands.choices.values() for action in parser._actions for flag in action.option_strings
    }
    documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", DOCS))
    assert flags - {"-h", "--help"} <= documented
    assert set(commands.choices) <= set(re.findall(r"\w+", DOCS))


def test_an_output_that_cannot_be_written_is_refused_before_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    with pytest.raises(SystemExit, match="2"):
        main(["generate", "x", "-o", "apple.png"])
    assert main(["generate", "x", "--url=127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.count("cannot be written") == 2


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"triton-diffusers-client {version('triton-diffusers-client')}\n"


@pytest.mark.parametrize(
    ("arguments", "key", "headers"),
    [
        ([], None, {}),
        (["--api-key=given"], "given", {}),
        (["--header=X-Team: art", "--header=X-Empty:"], None, {"X-Team": "art", "X-Empty": ""}),
        (["--header=Authorization: Basic x:y"], None, {"Authorization": "Basic x:y"}),
    ],
)
def test_keys_and_headers(
    arguments: list[str], key: str | None, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    def make(url: str, **options: Any) -> Any:
        made.update(options)
        raise ValueError("enough")

    monkeypatch.setattr("triton_diffusers_client.cli.program.Client", make)
    with pytest.raises(SystemExit):
        main(["jobs", *arguments])
    assert (made["api_key"], made["headers"]) == (key, headers)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServerError("x"), 1),
        (NotFoundError("x"), 1),
        (OSError("x"), 1),
        (BusyError("x"), 3),
        (ConnectionFailedError("x"), 3),
        (RequestTimeoutError("x"), 4),
    ],
)
def test_exit_codes(error: Exception, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(client: Any, args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(commands, "jobs", fail)
    assert main(["jobs", "--url=grpc://server"]) == code
