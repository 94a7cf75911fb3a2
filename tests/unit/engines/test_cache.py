"""Graph caches are used for matching content only."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from triton_diffusers.artifacts import ArtifactFile
from triton_diffusers.engines.compilers import GraphCache, caches_of


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    cache = GraphCache(tmp_path / "some" / "place" / "unet", "checksums")
    cache.write("library 1.0", b"kept")
    return cache


def test_written_data_is_read(cache: GraphCache) -> None:
    assert cache.read("library 1.0") == b"kept"
    cache.write("library 1.0", b"")
    assert cache.read("library 1.0") == b""
    assert [path.name for path in cache.file.parent.iterdir()] == ["unet"]


def test_missing_file_is_not_read(cache: GraphCache) -> None:
    assert replace(cache, file=cache.file.with_name("vae_decoder")).read("library 1.0") is None


def test_data_of_other_content_or_library_is_not_read(cache: GraphCache) -> None:
    assert cache.read("library 1.1") is None
    assert replace(cache, content="other checksums").read("library 1.0") is None
    assert replace(cache, content="checksums\nlibrary").read("1.0") is None


@pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
def test_damaged_data_is_not_read(cache: GraphCache, damage: str) -> None:
    whole = cache.file.read_bytes()
    cache.file.write_bytes({"cut": whole[:-1], "empty": b"", "changed": whole[:-1] + b"?"}[damage])
    assert cache.read("library 1.0") is None


def test_unwritable_cache_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = GraphCache(tmp_path / "file" / "unet", "checksums")
    with caplog.at_level(logging.INFO):
        cache.write("library 1.0", b"kept")
        assert cache.read("library 1.0") is None
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert f"the graph cache {cache.file} cannot be written: " in caplog.messages[0]


def test_full_disk_keeps_the_old_data(cache: GraphCache, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def fail(descriptor: int, data: bytes) -> int:
        write(descriptor, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    cache.write("library 1.0", b"newer")
    assert cache.read("library 1.0") == b"kept"
    assert [path.name for path in cache.file.parent.iterdir()] == ["unet"]


def files(*digits: str) -> list[ArtifactFile]:
    return [ArtifactFile(path=digit, size=1, xxh3=digit * 32) for digit in digits]


def test_artifacts_have_separate_caches(tmp_path: Path) -> None:
    first, other = (
        caches_of(tmp_path, tmp_path / model / "openvino-int8", {"unet": files("1", "2"), "vae_decoder": files("3")})
        for model in ("first", "other")
    )
    assert first.keys() == {"unet", "vae_decoder"}
    assert first["unet"].content == f"{'1' * 32} {'2' * 32}"
    places = {cache.file for caches in (first, other) for cache in caches.values()}
    assert len(places) == 4
    assert all(place.is_relative_to(tmp_path / "graphs") for place in places)
    assert first["unet"].file.parent.name.startswith("openvino-int8-")
