"""Model directories and artifacts in S3: downloaded, resumed, verified, uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_server import S3Server
from tests.unit.artifacts.samples import made, manifest_of
from triton_diffusers.artifacts import OPTIMIZED_MODEL, ArtifactStore, damage
from triton_diffusers.compile.errors import CannotBegin
from triton_diffusers.compile.upload import Upload
from triton_diffusers.downloads import SourceError, resolve_model_dir
from triton_diffusers.settings import Settings

SOURCE = "s3://bucket/models/mine"
WEIGHTS = bytes(range(256)) * 2000
FILES = {
    "base_model/model_index.json": b"{}",
    "base_model/unet/diffusion_pytorch_model.safetensors": WEIGHTS,
    "lora/a b.safetensors": b"lora",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    monkeypatch.setattr("triton_diffusers.downloads.download._FIRST_PAUSE_SECONDS", 0.001)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with S3Server(page=2) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for path, data in FILES.items():
            server.put("bucket", f"models/mine/{path}", data)
        server.put("bucket", "models/mine/lora/", b"")
        server.put("bucket", "models/mine-too/secret", b"no")
        yield server


@pytest.fixture
def settings(server: S3Server, tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", s3_endpoint=server.endpoint, s3_region=server.region, offline=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_directory_is_downloaded_once(server: S3Server, settings: Settings) -> None:
    folder = resolve_model_dir(SOURCE, settings)
    assert contents(folder) == FILES
    before = sum(method == "GET" for method, _, _ in server.seen)
    assert resolve_model_dir(SOURCE, settings) == folder
    listings = sum(method == "GET" and not key for method, key, _ in server.seen[-3:])
    assert sum(method == "GET" for method, _, _ in server.seen) == before + listings, "only the listing is asked for"


def test_a_broken_download_is_resumed(server: S3Server, settings: Settings) -> None:
    for _ in range(6):  # the listing, the files and some of their parts
        server.hang_up(method="GET", after_bytes=100_000)
    assert contents(resolve_model_dir(SOURCE, settings))[
        f"{'base_model/unet/'}diffusion_pytorch_model.safetensors"
    ] == (WEIGHTS)
    ranges = {headers.get("range") for method, key, headers in server.seen if key.endswith("model.safetensors")}
    assert len(ranges - {None}) > 1


def test_a_changed_object_replaces_the_download(server: S3Server, settings: Settings) -> None:
    folder = resolve_model_dir(SOURCE, settings)
    server.put("bucket", "models/mine/lora/a b.safetensors", b"another")
    resolve_model_dir(SOURCE, settings)
    assert contents(folder)["lora/a b.safetensors"] == b"another"


def test_a_service_that_is_away_leaves_the_earlier_download(server: S3Server, settings: Settings) -> None:
    folder = resolve_model_dir(SOURCE, settings)
    server.fail(503, "SlowDown", times=9)
    assert resolve_model_dir(SOURCE, settings) == folder


def test_a_refusal_is_told(server: S3Server, settings: Settings) -> None:
    server.fail(403, "AccessDenied")
    with pytest.raises(SourceError, match=r"s3://bucket/models/mine cannot be listed: S3 answered 403 AccessDenied"):
        resolve_model_dir(SOURCE, settings)


@pytest.mark.parametrize("source", ["s3://B/x", "s3://bucket/../x", "s3://"])
def test_an_invalid_source_is_refused(settings: Settings, source: str) -> None:
    with pytest.raises(SourceError, match=r"is invalid: expected s3://bucket/prefix|is not a model directory"):
        resolve_model_dir(source, settings)


def test_an_uploaded_artifact_is_downloaded_with_its_model(
    server: S3Server, settings: Settings, tmp_path: Path
) -> None:
    made(tmp_path / "work", {"unet/model.bin": b"weights" * 1000, "unet/model.xml": b"<net/>"})
    artifact = ArtifactStore(tmp_path / OPTIMIZED_MODEL).place(tmp_path / "work", manifest_of(tmp_path / "work"))
    server.fail(503, "SlowDown", method="PUT")
    Upload(SOURCE, settings).put(artifact, lambda done, total: None)
    puts = [key for method, key, _ in server.seen if method == "PUT"]
    assert puts[-1].endswith("/manifest.json"), "the manifest comes last"
    found = ArtifactStore(resolve_model_dir(SOURCE, settings) / OPTIMIZED_MODEL).find("openvino", "bfloat16")
    assert found is not None
    assert damage(found.folder, found.manifest, full=True) is None


def test_an_object_damaged_on_the_way_is_noticed(server: S3Server, settings: Settings, tmp_path: Path) -> None:
    """Objects that were uploaded here have their hash beside them."""
    made(tmp_path / "work", {"unet/model.bin": b"weights"})
    artifact = ArtifactStore(tmp_path / OPTIMIZED_MODEL).place(tmp_path / "work", manifest_of(tmp_path / "work"))
    Upload(SOURCE, settings).put(artifact, lambda done, total: None)
    key = next(key for key in server.keys("bucket") if key.endswith("model.bin"))
    stored = server.buckets["bucket"][key]
    server.buckets["bucket"][key] = type(stored)(b"weighty", stored.content_type, stored.metadata)
    with pytest.raises(SourceError, match=r"was damaged during the download: its SHA-256 is"):
        resolve_model_dir(SOURCE, settings)


def test_missing_credentials_are_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CannotBegin, match="--out: s3://bucket/models/mine/optimized_model: s3: AWS's default chain"):
        Upload(SOURCE, settings)
