"""The command ``build``: its output and exit codes, without building anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.artifacts.samples import FILES, made, manifest_of
from triton_diffusers.artifacts import Artifact, ArtifactStore, fingerprint
from triton_diffusers.cli import build as command
from triton_diffusers.cli import main as cli
from triton_diffusers.compile import plan
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.options import BuildOptions

ROOT = Path(__file__).parents[3]
EMOJI = ROOT / "models" / "emoji"


class FakeCompiler:
    name = "openvino"
    precisions = ("bfloat16", "float32", "int8")

    def versions(self) -> dict[str, str]:
        return {"openvino": "2026.4.1"}

    def machine(self) -> str:
        return "x86-64 avx512"

    def calibrated(self, precision: str) -> tuple[str, ...]:
        return ("unet",) if precision == "int8" else ()


class FakeCompilers(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        if name == "inductor":
            raise ImportError("compiled engine 'inductor' needs the package 'x'; install it with: pip install y")
        raise KeyError(f"unknown compiled engine {name!r}; known: openvino, inductor")


@pytest.fixture(autouse=True)
def _compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "COMPILERS", FakeCompilers(openvino=FakeCompiler))


def said(capsys: pytest.CaptureFixture[str], code: int, *arguments: str | Path) -> str:
    """Return standard output, or the last line of standard error if the command fails."""
    assert cli.main(["build", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    if not captured.err:
        return captured.out
    *_, line = captured.err.splitlines()
    assert line.startswith("triton-diffusers: ")
    return line.removeprefix("triton-diffusers: ")


def placed(out: Path, **changes: Any) -> Artifact:
    folder = made(out / "work", FILES)
    manifest = manifest_of(folder, **{"fingerprint": fingerprint(EMOJI), **changes})
    return ArtifactStore(out / "optimized_model").place(folder, manifest)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", EMOJI, "--engine", "tensorrt"], "--engine: unknown compiled engine 'tensorrt'; known: "),
        (["--model", EMOJI, "--engine", "inductor"], "compiled engine 'inductor' needs the package 'x'; "),
        (["--model", "/nowhere"], "/nowhere is not a model directory"),
        (["--model", "ftp://a/b"], "'ftp://a/b' is not a model directory"),
        (["--model", EMOJI, "--out", "hf://a/b"], "--out: hf://a/b is invalid: expected a directory, oss://b"),
        (["--model", EMOJI, "--out", "oss://a/b", "--wait"], "--out: oss://a/b is invalid: --wait needs a directory"),
        (["--model", EMOJI, "--remove"], "--remove needs --engine and --precision"),
        (["--model", EMOJI, "--list", "--out", "oss://a/b"], "--out: oss://a/b is invalid: --list, --verify"),
        (["--model", EMOJI, "--out", "oss://bucket-without-key/x"], "OSS_ACCESS_KEY_ID is not set in the environment"),
    ],
)  # fmt: skip
def test_unusable_arguments_exit_with_2(
    arguments: list[str | Path], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OSS_ACCESS_KEY_ID", raising=False)
    assert reason in said(capsys, 2, *arguments)


def test_an_unreadable_store_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "optimized_model").symlink_to(tmp_path / "optimized_model")
    for option in ("--list", "--verify"):
        said_of_it = said(capsys, 2, "--model", EMOJI, "--out", tmp_path, option)
        assert said_of_it.startswith(f"{tmp_path / 'optimized_model'} cannot be read: ")


@pytest.mark.parametrize(
    "arguments",
    [["--precision", "int4"], ["--steps", "0"], ["--side", "65"], ["--min-psnr", "x"], ["--list", "--verify"]],
)
def test_invalid_options_are_reported(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["build", "--model", "x", *arguments])
    assert arguments[0] in capsys.readouterr().err


class OlderProcessor(FakeCompiler):
    precisions = ("float32", "int8")


def test_a_precision_unsupported_by_the_processor_is_an_error_and_never_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "COMPILERS", FakeCompilers(openvino=OlderProcessor))
    refused = said(capsys, 2, "--model", EMOJI, "--precision", "bf16", "--out", tmp_path)
    assert refused == "--precision: bf16 is invalid: openvino has float32, int8 on this machine"
    told = said(capsys, 0, "--model", EMOJI, "--out", tmp_path, "--dry-run")
    assert f"{tmp_path}/optimized_model/openvino-float32" in told


@pytest.mark.parametrize(("given", "meant"), [("bf16", "bfloat16"), ("bfloat16", "bfloat16"), ("fp32", "float32")])
def test_precisions_have_synonyms(given: str, meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, 0, "--model", EMOJI, "--precision", given, "--out", tmp_path, "--dry-run")
    assert f"{tmp_path}/optimized_model/openvino-{meant}" in told


def test_a_dry_run_prints_the_plan_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, 0, "--model", EMOJI, "--out", tmp_path / "new", "--dry-run")
    assert (
        "compile unet, compile unet_shallow, compile controlnet, compile vae_encoder, compile vae_decoder, draw eagerly"
        in told
    )
    assert "at least 30 dB" in told
    assert not (tmp_path / "new").exists()
    told = said(capsys, 0, "--model", EMOJI, "--precision", "int8", "--out", tmp_path, "--dry-run")
    assert "calibrate, compile text_encoder" in told
    assert "would fetch hf://a/b" in said(capsys, 0, "--model", "hf://a/b", "--dry-run")


def test_an_artifact_that_fits_is_not_rebuilt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    placed(tmp_path)

    def build(plan: object, options: BuildOptions, progress: object) -> Artifact:
        raise BuildError("it is being built")

    monkeypatch.setattr(command, "build", build)
    out = ["--model", EMOJI, "--out", tmp_path]
    assert cli.main(["build", *map(str, out)]) == 0
    captured = capsys.readouterr()
    assert "openvino-bfloat16 exists already and fits; --force rebuilds it" in captured.err
    for figure in ("1.250", "0.500", "2.50 times as fast", "45 % of it", "36.0 dB", "512×512"):
        assert figure in captured.out
    assert said(capsys, 1, *out, "--force") == "it is being built"
    assert said(capsys, 1, *out, "--precision", "int8") == "it is being built"
    placed(tmp_path, versions={"openvino": "1.0"})
    assert cli.main(["build", *map(str, out)]) == 1
    told = capsys.readouterr().err
    assert "was built with another version of openvino (1.0; this is 2026.4.1); rebuilding it" in told


def test_list_shows_artifacts_and_why_they_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--model", EMOJI, "--out", tmp_path, "--list"]
    assert said(capsys, 0, *out) == f"no artifacts in {tmp_path}/optimized_model\n"
    placed(tmp_path)
    placed(tmp_path, precision="int8", fingerprint="0" * 64)
    placed(tmp_path, engine="inductor")
    made(tmp_path / "optimized_model" / "blade-float32")
    told = " ".join(said(capsys, 0, *out).split())
    for text in (
        "openvino-bfloat16",
        "2.50",
        "36.0 dB",
        "yes",
        "was built from another model",
        "needs the package 'x'",
    ):
        assert text in told
    assert "blade-float32/manifest.json cannot be read" in told
    told = said(capsys, 0, *out, "--engine", "openvino", "--precision", "int8")
    assert "openvino-int8" in told
    assert "bfloat16" not in told


def test_verify_finds_a_changed_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--model", EMOJI, "--out", tmp_path, "--verify"]
    assert "no such artifact exists" in said(capsys, 2, *out)
    artifact = placed(tmp_path)
    assert said(capsys, 0, *out) == "openvino-bfloat16: every byte matches the manifest\n"
    placed(tmp_path, precision="int8")
    (artifact.folder / "unet" / "model.bin").write_bytes(b"weightz")
    assert said(capsys, 1, *out) == (
        "openvino-bfloat16: unet/model.bin is damaged: its checksum is different\n"
        "openvino-int8: every byte matches the manifest\n"
    )
    assert said(capsys, 0, *out, "--precision", "int8").startswith("openvino-int8")


def test_remove_deletes_an_artifact_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    placed(tmp_path)
    out = ["--model", EMOJI, "--out", tmp_path, "--remove", "--engine", "openvino", "--precision", "bf16"]
    assert said(capsys, 0, *out) == f"removed {tmp_path}/optimized_model/openvino-bfloat16\n"
    assert said(capsys, 2, *out) == f"{tmp_path}/optimized_model has no artifact openvino-bfloat16"


def test_the_script_has_the_documented_options() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "build_optimized.py", "--help"], capture_output=True, text=True, check=True, cwd="/"
    )
    documented = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    for option in ("--model", "--engine", "--precision", "--out", "--force", "--wait", "--dry-run", "--min-psnr",
                   "--steps", "--side", "--list", "--verify", "--remove"):  # fmt: skip
        assert option in run.stdout
        assert option in documented
