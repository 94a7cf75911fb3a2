"""Uploads of an artifact: complete with the manifest last, despite any fault of the bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oss_server import OssServer
from tests.unit.artifacts.samples import made, manifest_of
from triton_diffusers.artifacts import OPTIMIZED_MODEL, Artifact, ArtifactStore, damage
from triton_diffusers.compile import upload as upload_module
from triton_diffusers.compile.errors import BuildError, CannotBegin
from triton_diffusers.compile.upload import Upload
from triton_diffusers.downloads import resolve_model_dir
from triton_diffusers.settings import Settings

TARGET = "oss://bucket/models/mine"
PLACE = "models/mine/optimized_model/openvino-bfloat16"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    monkeypatch.setattr(upload_module, "_FIRST_PAUSE_SECONDS", 0.001)
    with OssServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.put("bucket", "models/mine/base_model/model_index.json", b"{}")
        yield server


@pytest.fixture
def settings(bucket: OssServer, tmp_path: Path) -> Settings:
    return Settings(
        cache_dir=tmp_path / "cache", oss_region=bucket.region, oss_endpoint=bucket.endpoint, offline=False
    )  # fmt: skip


def placed(folder: Path, files: dict[str, bytes]) -> Artifact:
    made(folder / "work", files)
    return ArtifactStore(folder / OPTIMIZED_MODEL).place(folder / "work", manifest_of(folder / "work"))


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return placed(tmp_path, {"unet/model.bin": b"weights" * 1000, "unet/model.xml": b"<net/>"})


def uploaded(bucket: OssServer) -> list[str]:
    return [key.removeprefix(f"{PLACE}/") for key in bucket.keys("bucket") if key.startswith(f"{PLACE}/")]


def test_an_uploaded_artifact_is_downloaded_with_its_model(
    bucket: OssServer, settings: Settings, artifact: Artifact
) -> None:
    said: list[tuple[int, int]] = []
    Upload(TARGET, settings).put(artifact, lambda done, total: said.append((done, total)))
    assert uploaded(bucket) == ["manifest.json", "unet/model.bin", "unet/model.xml"]
    assert said[-1] == (7006, 7006)
    model_dir = resolve_model_dir(TARGET, settings)
    found = ArtifactStore(model_dir / OPTIMIZED_MODEL).find("openvino", "bfloat16")
    assert found is not None
    assert found.manifest == artifact.manifest
    assert damage(found.folder, found.manifest, full=True) is None


def test_an_upload_replaces_an_older_artifact_completely(
    bucket: OssServer, settings: Settings, artifact: Artifact, tmp_path: Path
) -> None:
    bucket.put("bucket", f"{PLACE}-2/manifest.json", b"another artifact")
    Upload(TARGET, settings).put(artifact, lambda done, total: None)
    successor = placed(tmp_path / "second", {"unet/new.bin": b"new"})
    Upload(f"{TARGET}/", settings).put(successor, lambda done, total: None)
    assert uploaded(bucket) == ["manifest.json", "unet/new.bin"]
    assert f"{PLACE}-2/manifest.json" in bucket.keys("bucket")


def test_transient_faults_are_retried(bucket: OssServer, settings: Settings, artifact: Artifact) -> None:
    bucket.fail(status=503, code="ServiceUnavailable", method="PUT")
    bucket.hang_up(method="PUT")
    bucket.corrupt_crc(method="PUT")
    Upload(TARGET, settings).put(artifact, lambda done, total: None)
    assert len(uploaded(bucket)) == 3


def test_a_failed_upload_leaves_no_manifest(bucket: OssServer, settings: Settings, artifact: Artifact) -> None:
    Upload(TARGET, settings).put(artifact, lambda done, total: None)
    bucket.fail(status=403, code="AccessDenied", method="PUT", times=20)
    with pytest.raises(BuildError, match=r"openvino-bfloat16 was not uploaded: .*AccessDenied; it is built in /"):
        Upload(TARGET, settings).put(artifact, lambda done, total: None)
    assert "manifest.json" not in uploaded(bucket)
    assert bucket.count("PUT") == 4, "a refusal is not retried"


@pytest.mark.parametrize("target", ["oss://", "oss://bucket/../other", "oss://bucket/./x"])
def test_an_invalid_target_is_an_error(bucket: OssServer, settings: Settings, target: str) -> None:
    with pytest.raises(CannotBegin, match=r"is invalid: expected oss://bucket/prefix"):
        Upload(target, settings)


def test_missing_credentials_are_an_error(
    bucket: OssServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OSS_ACCESS_KEY_ID")
    with pytest.raises(CannotBegin, match="OSS_ACCESS_KEY_ID is not set"):
        Upload(TARGET, settings)
