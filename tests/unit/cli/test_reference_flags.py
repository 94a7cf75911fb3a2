"""The flags of the reference's server mean what they meant there."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from triton_diffusers.cli import main as cli
from triton_diffusers.cli.reference_flags import Deployment, Mounts, read
from triton_diffusers.launcher.errors import BadOption
from triton_diffusers.launcher.model_dir import discard_artifacts

# The deployment's command and the local one, as the reference's documents have them.
DEPLOYED = "--func_name base --oss_save_dir oss://bucket/zxy/0605/ --region hangzhou --use_blade --use_translate"
LOCAL = "--func_name base --oss_save_dir xxx --region any --model_dir=MODEL --save_dir=OUT --use_blade --local_debug"
URLS = {
    "TRITON_DIFFUSERS_STORE_URL": "https://bucket.oss-cn-hangzhou.aliyuncs.com/zxy/0605",
    "TRITON_DIFFUSERS_STORE_LOCATION": "oss://bucket/zxy/0605",
}
BLADE = {"TRITON_DIFFUSERS_OPTIMIZE": "openvino"}
TRANSLATE = {"TRITON_DIFFUSERS_USE_TRANSLATE": "true"}
NO_TRANSLATION = {"TRITON_DIFFUSERS_USE_TRANSLATE": "false"}


@pytest.fixture
def mounts(tmp_path: Path) -> Mounts:
    (tmp_path / "oss" / "base_model").mkdir(parents=True)
    (tmp_path / "result").mkdir()
    return Mounts(tmp_path / "oss", tmp_path / "result")


@pytest.fixture
def no_mounts(tmp_path: Path) -> Mounts:
    return Mounts(tmp_path / "oss", tmp_path / "result")


def choose(words: str, mounts: Mounts, **environment: str) -> Deployment:
    variables = {f"TRITON_DIFFUSERS_{name}": value for name, value in environment.items()}
    return read(cli.make_parser().parse_args(["serve", *shlex.split(words)]), variables, mounts)


def test_a_deployment_finds_its_mounts(mounts: Mounts) -> None:
    deployment = choose(DEPLOYED, mounts, MODEL_DIR="/model", STORE="")
    assert deployment == Deployment(str(mounts.model), str(mounts.results), {**URLS, **BLADE, **TRANSLATE})


def test_a_deployment_without_a_mount_uploads(no_mounts: Mounts) -> None:
    assert choose(f"{DEPLOYED} --model_dir m", no_mounts) == Deployment(
        "m", "oss://bucket/zxy/0605", {"TRITON_DIFFUSERS_OSS_REGION": "cn-hangzhou", **BLADE, **TRANSLATE}
    )


def test_local_debugging_takes_its_own_folders(mounts: Mounts) -> None:
    assert choose(LOCAL, mounts) == Deployment("MODEL", "OUT", BLADE)
    assert choose("--local_debug", mounts) == Deployment(None, None)


def test_mounts_are_found_without_flags_unless_something_else_is_named(mounts: Mounts) -> None:
    assert choose("", mounts) == Deployment(str(mounts.model), str(mounts.results))
    assert choose("", mounts, MODEL_DIR="/m", STORE="/s") == Deployment(None, None)
    assert choose("--model-dir m --store ''", mounts) == Deployment("m", "")
    (mounts.model / "base_model").rmdir()
    assert choose("", mounts).model_dir is None


def test_flags_set_what_they_name(no_mounts: Mounts) -> None:
    bucket = "--oss_save_dir oss://bucket --region oss-cn-shanghai --save_dir s --model_dir m"
    urls = {
        "TRITON_DIFFUSERS_STORE_URL": "https://bucket.oss-cn-shanghai.aliyuncs.com",
        "TRITON_DIFFUSERS_STORE_LOCATION": "oss://bucket",
    }
    assert choose(bucket, no_mounts) == Deployment("m", "s", {**urls, **NO_TRANSLATION})
    region = choose("--oss_save_dir oss://bucket --model_dir m", no_mounts, OSS_REGION="hangzhou")
    assert region.settings == {"TRITON_DIFFUSERS_OSS_REGION": "cn-hangzhou", **NO_TRANSLATION}
    assert choose("--close_safety", no_mounts).settings == {"TRITON_DIFFUSERS_CLOSE_SAFETY": "true"}
    assert choose("--use_blade", no_mounts, OPTIMIZE="inductor").settings == {}
    services = {"TRITON_DIFFUSERS_GATEWAY_SERVICES": "*=ensemble_controlnet"}
    assert choose("--func_name controlnet", no_mounts).settings == services
    assert choose("--func_name controlnet", no_mounts, GATEWAY_SERVICES="a=sd_base").settings == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--save_dir a --store b", "--save_dir: 'a' is invalid: --store names another place for the results"),
        (
            "--oss_save_dir oss://bucket/a --region hangzhou --store b",
            "--oss_save_dir: 'oss://bucket/a' is invalid: --store names another place for the results",
        ),
        ("--oss_save_dir /a --region hangzhou", "--oss_save_dir: '/a' is invalid: expected oss://bucket/prefix"),
        (
            "--oss_save_dir oss://bucket/a",
            "--region: '' is invalid: --oss_save_dir needs the region of its bucket, such as hangzhou",
        ),
        (
            "--oss_save_dir oss://bucket/a --region 'h z'",
            "--region: 'h z' is invalid: the bucket's region, as cn-hangzhou",
        ),
        ("--region hangzhou", "--region: 'hangzhou' is invalid: it is that of --oss_save_dir, which is missing"),
        (
            "--oss_save_dir oss://bucket/a --region hangzhou",
            "--model_dir: '' is invalid: name a model directory; MODEL has no base_model/",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_refused(no_mounts: Mounts, words: str, message: str) -> None:
    with pytest.raises(BadOption) as raised:
        choose(words, no_mounts)
    assert str(raised.value) == message.replace("MODEL", str(no_mounts.model))


def test_an_invalid_flag_ends_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--region", "hangzhou", "--log-file="]) == 2
    assert "--region: 'hangzhou' is invalid" in capsys.readouterr().err


def test_compiled_artifacts_are_removed_if_asked_to(tmp_path: Path) -> None:
    artifact = tmp_path / "optimized_model" / "openvino-float32" / "manifest.json"
    discard_artifacts(tmp_path)
    artifact.parent.mkdir(parents=True)
    artifact.touch()
    (tmp_path / "base_model").mkdir()
    discard_artifacts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["base_model"]


def test_the_flag_that_needs_no_action_is_told(no_mounts: Mounts, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        choose("--not_use_default_blade", no_mounts)
    assert "--not_use_default_blade changes nothing" in caplog.text
