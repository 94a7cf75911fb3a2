"""Model directories from hubs and buckets, with broken connections and hostile listings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oss_server import OssServer
from tests.unit.downloads.hubs import Hub
from triton_diffusers.downloads import SourceError, resolve_model_dir
from triton_diffusers.downloads import download as download_module
from triton_diffusers.downloads.oss import OssFolder
from triton_diffusers.downloads.remote import RemoteFile, check
from triton_diffusers.settings import Settings

WEIGHTS = bytes(range(256)) * 800
PLAIN = "unet/diffusion_pytorch_model.safetensors"
FOLDER = {
    "model_index.json": b"{}",
    "unet/config.json": b"{}",
    PLAIN: WEIGHTS,
    "unet/diffusion_pytorch_model.fp16.safetensors": WEIGHTS[:2000],
    "unet/diffusion_pytorch_model.bin": WEIGHTS,
    "text_encoder/model.safetensors": WEIGHTS[:1500],
    "text_encoder/flax_model.msgpack": b"x",
    "README.md": b"#",
    "v1-5-pruned.safetensors": WEIGHTS,
    "onnx/model.onnx": b"x",
}
NEEDED = {"model_index.json", "unet/config.json", PLAIN, "text_encoder/model.safetensors"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "_FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(FOLDER) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", offline=False)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    with OssServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for name, data in FOLDER.items():
            server.put("bucket", f"models/mine/base_model/{name}", data)
        server.put("bucket", "models/mine/lora/a.safetensors", b"lora")
        server.put("bucket", "models/mine/lora/", b"")
        server.put("bucket", "models/mine-too/secret", b"no")
        yield server


def oss(server: OssServer, settings: Settings) -> Settings:
    return settings.model_copy(update={"oss_region": server.region, "oss_endpoint": server.endpoint})


def below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


SCHEMES = ["hf", "modelscope"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_repository_becomes_the_base_model(hub: Hub, settings: Settings, scheme: str) -> None:
    folder = resolve_model_dir(f"{scheme}://owner/name@main", settings)
    assert below(folder / "base_model") == NEEDED
    assert (folder / "base_model" / PLAIN).read_bytes() == WEIGHTS
    hub.ranges.clear()
    assert resolve_model_dir(f"{scheme}://owner/name@main", settings) == folder
    assert hub.ranges == [], "no file is downloaded twice"
    assert resolve_model_dir(f"{scheme}://owner/name@main", settings.model_copy(update={"offline": True})) == folder


def test_compiled_artifacts_come_from_buckets_only(
    hub: Hub, bucket: OssServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can be programs, which a publicly shared model must not bring along."""
    bucket.put("bucket", "models/mine/optimized_model/inductor-float32/manifest.json", b"{}")
    ours = below(resolve_model_dir("oss://bucket/models/mine", oss(bucket, settings)))
    assert "optimized_model/inductor-float32/manifest.json" in ours
    hub.stored.clear()
    hub.stored.update({"base_model/model_index.json": b"{}", "optimized_model/inductor-float32/manifest.json": b"{}"})
    for scheme in SCHEMES:
        theirs = below(resolve_model_dir(f"{scheme}://owner/name", settings))
        assert theirs == {"base_model/model_index.json"}


def test_half_precision_takes_the_variant(hub: Hub, settings: Settings) -> None:
    folder = resolve_model_dir("modelscope://owner/name", settings.model_copy(update={"dtype": "float16"}))
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in below(folder / "base_model")
    assert PLAIN not in below(folder / "base_model")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_broken_connection_is_resumed(hub: Hub, settings: Settings, scheme: str) -> None:
    hub.break_after[PLAIN] = 150_000
    folder = resolve_model_dir(f"{scheme}://owner/name", settings)
    assert (folder / "base_model" / PLAIN).read_bytes() == WEIGHTS
    assert len(hub.requested_ranges(PLAIN)) == 2
    if scheme == "modelscope":
        assert hub.requested_ranges(PLAIN) == ["bytes=0-", "bytes=131072-"]


def test_a_download_resumes_at_a_hub_that_ignores_ranges(hub: Hub, settings: Settings) -> None:
    hub.break_after[PLAIN] = 150_000
    hub.ignores_ranges = True
    folder = resolve_model_dir("modelscope://owner/name", settings)
    assert (folder / "base_model" / PLAIN).read_bytes() == WEIGHTS


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_damaged_file_is_refused(hub: Hub, settings: Settings, scheme: str) -> None:
    hub.damaged.add(PLAIN)
    with pytest.raises(SourceError, match=f"{PLAIN} was damaged during the download: its SHA-256"):
        resolve_model_dir(f"{scheme}://owner/name", settings)
    with pytest.raises(SourceError, match="not in the cache"):
        resolve_model_dir(f"{scheme}://owner/name", settings.model_copy(update={"offline": True}))
    hub.damaged.clear()
    folder = resolve_model_dir(f"{scheme}://owner/name", settings)
    assert (folder / "base_model" / PLAIN).read_bytes() == WEIGHTS


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_update_downloads_changed_files_only(hub: Hub, settings: Settings, scheme: str) -> None:
    folder = resolve_model_dir(f"{scheme}://owner/name", settings)
    hub.ranges.clear()
    hub.stored["unet/config.json"] = b'{"new": 1}'
    del hub.stored["text_encoder/model.safetensors"]
    resolve_model_dir(f"{scheme}://owner/name", settings)
    assert [name for name, _ in hub.ranges] == ["unet/config.json"]
    assert below(folder / "base_model") == NEEDED - {"text_encoder/model.safetensors"}
    assert (folder / "base_model" / "unet" / "config.json").read_bytes() == b'{"new": 1}'


def test_a_single_checkpoint_file_becomes_the_base_model(hub: Hub, settings: Settings) -> None:
    hub.stored = {"model.safetensors": WEIGHTS, "model.yaml": b"model:", "README.md": b"#"}
    folder = resolve_model_dir("modelscope://owner/name", settings)
    assert below(folder) == {"base_model/model.safetensors", "base_model/model.yaml"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_repository_without_a_model_is_an_error(hub: Hub, settings: Settings, scheme: str) -> None:
    hub.stored = {"a.safetensors": b"a", "b.safetensors": b"b"}
    with pytest.raises(SourceError, match=r"one checkpoint at its root, got a.safetensors, b.safetensors"):
        resolve_model_dir(f"{scheme}://owner/name", settings)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_missing_repository_is_an_error(hub: Hub, settings: Settings, scheme: str) -> None:
    with pytest.raises(SourceError, match=f"{scheme}://owner/other.* does not exist, or requires a token"):
        resolve_model_dir(f"{scheme}://owner/other", settings)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_earlier_download_serves_while_the_hub_fails(hub: Hub, settings: Settings, scheme: str) -> None:
    hub.status = 503
    with pytest.raises(SourceError, match="cannot be listed"):
        resolve_model_dir(f"{scheme}://owner/name", settings)
    hub.status = 0
    folder = resolve_model_dir(f"{scheme}://owner/name", settings)
    hub.status = 503
    assert resolve_model_dir(f"{scheme}://owner/name", settings) == folder


def test_offline_mode_names_missing_files(hub: Hub, settings: Settings) -> None:
    offline = settings.model_copy(update={"offline": True})
    with pytest.raises(SourceError, match=r"modelscope://owner/name is not in the cache .* offline mode is set"):
        resolve_model_dir("modelscope://owner/name", offline)
    assert hub.listings == 0
    folder = resolve_model_dir("modelscope://owner/name", settings)
    (folder / "base_model" / PLAIN).unlink()
    with pytest.raises(SourceError, match=rf"is incomplete in the cache: base_model/{PLAIN} \(1 missing\)"):
        resolve_model_dir("modelscope://owner/name", offline)


@pytest.mark.parametrize(
    "name",
    [
        "../x", "unet/../../x", "/etc/x", "unet//x", "a/./b", "a\\..\\b",
        "a\nb", "a\x00b", "a*",
        "", "unet/", "x" * 300,
    ],
)  # fmt: skip
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match=r"is refused: the file name .* is invalid"):
        check([RemoteFile("fine", 1, ""), RemoteFile(name, 1, "")], 100, "hf://a/b")


def test_hostile_listings_are_refused(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    hub.stored["unet/../../../../escaped"] = b"x"
    for scheme in SCHEMES:
        with pytest.raises(SourceError, match=r"is refused: the file name .* is invalid"):
            resolve_model_dir(f"{scheme}://owner/name", settings)
    assert not list(tmp_path.rglob("escaped"))


def test_listings_are_bounded() -> None:
    with pytest.raises(SourceError, match="the limit is 10000"):
        check([RemoteFile(str(number), 0, "") for number in range(10_001)], 100, "s")
    with pytest.raises(SourceError, match=r"is refused: it has 2.0 GB, the limit is 1 GB"):
        check([RemoteFile("a", 2 * 10**9, "")], 10**9, "s")
    with pytest.raises(SourceError, match="'a/b' is below another file"):
        check([RemoteFile("a", 1, ""), RemoteFile("a/b", 1, "")], 100, "s")


def test_a_file_longer_than_listed_is_refused(tmp_path: Path) -> None:
    def lie(file: RemoteFile, offset: int) -> Iterator[bytes]:
        yield b"12345"

    with pytest.raises(SourceError, match="longer than the 3 bytes listed"):
        download_module.download([RemoteFile("a", 3, "t")], tmp_path, lie)
    assert below(tmp_path) == set()


def test_concurrent_downloads_run_once(hub: Hub, settings: Settings) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve_model_dir("modelscope://owner/name", settings)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert len(hub.requested_ranges(PLAIN)) == 1


def test_a_bucket_is_a_model_directory(bucket: OssServer, settings: Settings) -> None:
    folder = resolve_model_dir("oss://bucket/models/mine", oss(bucket, settings))
    assert below(folder / "base_model") == NEEDED | {"README.md", "v1-5-pruned.safetensors", "onnx/model.onnx"}
    assert (folder / "lora" / "a.safetensors").read_bytes() == b"lora"
    assert (folder / "base_model" / PLAIN).read_bytes() == WEIGHTS


def test_a_bucket_download_survives_broken_connections(
    bucket: OssServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_oss = oss(bucket, settings)
    resolve_model_dir("oss://bucket/models/mine", with_oss)
    bucket.put("bucket", f"models/mine/base_model/{PLAIN}", WEIGHTS[::-1])
    listed = OssFolder.files

    def list_then_break(folder: OssFolder) -> Any:  # the listing is a GET as well
        files = listed(folder)
        bucket.hang_up(after_bytes=150_000, method="GET")
        bucket.hang_up(after_bytes=70_000, method="GET")
        return files

    monkeypatch.setattr(OssFolder, "files", list_then_break)
    folder = resolve_model_dir("oss://bucket/models/mine", with_oss)
    assert (folder / "base_model" / PLAIN).read_bytes() == WEIGHTS[::-1]
    ranges = [seen.headers.get("range") for seen in bucket.seen if seen.method == "GET" and PLAIN in seen.key]
    assert ranges[1:] == ["bytes=0-", "bytes=131072-", "bytes=196608-"]


def test_a_damaged_object_is_refused(bucket: OssServer, settings: Settings) -> None:
    bucket.corrupt_crc(times=1, method="HEAD")
    with pytest.raises(SourceError, match="was damaged during the download: its CRC-64"):
        resolve_model_dir("oss://bucket/models/mine", oss(bucket, settings))


def test_credentials_of_a_bucket_are_not_logged(
    bucket: OssServer, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("oss2").setLevel(logging.NOTSET)  # another test may have opened a bucket before
    bucket.security_token = "a-session-token"
    monkeypatch.setenv("OSS_SESSION_TOKEN", bucket.security_token)
    with caplog.at_level(logging.DEBUG):
        assert OssFolder("bucket", "models/mine", oss(bucket, settings)).files()
        monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "wrong")
        with pytest.raises(SourceError, match="SignatureDoesNotMatch"):
            OssFolder("bucket", "models/mine", oss(bucket, settings)).files()
    for secret in (bucket.security_token, bucket.key_id, "StringToSign"):
        assert secret not in caplog.text


def test_a_bucket_needs_region_and_credentials(
    bucket: OssServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match="TRITON_DIFFUSERS_OSS_REGION"):
        resolve_model_dir("oss://bucket/models/mine", settings)
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "wrong")
    with pytest.raises(SourceError, match="cannot be listed: SignatureDoesNotMatch"):
        resolve_model_dir("oss://bucket/models/mine", oss(bucket, settings))
    monkeypatch.delenv("OSS_ACCESS_KEY_SECRET")
    with pytest.raises(SourceError, match="OSS_ACCESS_KEY_SECRET is not set"):
        resolve_model_dir("oss://bucket/models/mine", oss(bucket, settings))


@pytest.mark.parametrize(
    "source",
    ["hf://name", "hf://a/b/c", "hf://../b", "hf://a/b@../x", "ftp://a/b", "oss://B/x", "oss://bucket/../x", "hf://"],
)
def test_an_invalid_source_is_an_error(source: str, settings: Settings) -> None:
    with pytest.raises(SourceError, match=r"expected "):
        resolve_model_dir(source, settings)


def test_a_path_is_returned_unchanged(settings: Settings) -> None:
    assert resolve_model_dir("models/emoji", settings) == Path("models/emoji")
