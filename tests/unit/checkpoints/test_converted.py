"""The cache of conversions: once for each content, whole or not at all, by one process at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from triton_diffusers.checkpoints import conversion_cache as module
from triton_diffusers.checkpoints.conversion_cache import converted
from triton_diffusers.checkpoints.errors import LoadError


class Counting:
    """Converts by copying, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, source: Path, folder: Path) -> None:
        self.calls += 1
        (folder / "content").write_bytes(source.read_bytes())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "base_model.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


def test_once(source: Path, tmp_path: Path) -> None:
    convert = Counting()
    folder = converted(source, tmp_path / "cache", convert)
    assert folder == source.parent / "base_model.converted"
    assert converted(source, tmp_path / "cache", convert) == folder
    assert convert.calls == 1
    assert (folder / "content").read_bytes() == b"one"
    assert not (tmp_path / "cache").exists()


def test_again_when_the_file_changes(source: Path, tmp_path: Path) -> None:
    convert = Counting()
    converted(source, tmp_path, convert)
    source.write_bytes(b"two")
    assert (converted(source, tmp_path, convert) / "content").read_bytes() == b"two"
    assert convert.calls == 2
    os.utime(source)  # touched, as by a copy, but the same
    converted(source, tmp_path, convert)
    assert convert.calls == 2
    assert [path.name for path in source.parent.glob("*unfinished*")] == []


def test_again_when_the_sidecar_changes(source: Path, tmp_path: Path) -> None:
    convert = Counting()
    converted(source, tmp_path, convert)
    config = source.parent / "base_model.config" / "scheduler" / "scheduler_config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    converted(source, tmp_path, convert)
    assert convert.calls == 2
    config.unlink()
    converted(source, tmp_path, convert)
    assert convert.calls == 3


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"version": 0, "inputs": []}'])
def test_again_when_the_manifest_does_not_fit(source: Path, tmp_path: Path, manifest: str) -> None:
    convert = Counting()
    folder = converted(source, tmp_path, convert)
    (folder / "source.json").write_text(manifest)
    converted(source, tmp_path, convert)
    assert convert.calls == 2
    assert json.loads((folder / "source.json").read_text())["inputs"][0]["size"] == 3


def test_elsewhere_when_the_directory_is_read_only(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = Counting()
    # The tests may run as root, whom permissions do not stop.
    monkeypatch.setattr(module, "_is_writable", lambda folder: False)
    folder = converted(source, tmp_path / "cache", convert)
    assert folder.parent == tmp_path / "cache" / "converted"
    assert converted(source, tmp_path / "cache", convert) == folder
    assert convert.calls == 1
    assert [path.name for path in source.parent.iterdir()] == [source.name]


def test_writable_folders_are_detected(tmp_path: Path) -> None:
    assert module._is_writable(tmp_path)
    assert not module._is_writable(Path("/proc/self"))


def test_a_failed_conversion_leaves_no_files(source: Path, tmp_path: Path) -> None:
    def fail(source: Path, folder: Path) -> None:
        (folder / "half").touch()
        raise LoadError("no")

    with pytest.raises(LoadError, match="no"):
        converted(source, tmp_path, fail)
    assert [path.name for path in source.parent.iterdir() if path.suffix not in (".ckpt", ".lock")] == []


def test_a_file_that_changes_meanwhile(source: Path, tmp_path: Path) -> None:
    def change(source: Path, folder: Path) -> None:
        source.write_bytes(b"another")

    with pytest.raises(LoadError, match="was changed while it was converted"):
        converted(source, tmp_path, change)


def _run(convert: Callable[[Path, Path], None], source: Path, cache: Path) -> None:
    converted(source, cache, convert)


def _forever(source: Path, folder: Path) -> None:
    (folder / "content").write_bytes(b"half")
    time.sleep(60)


def _slowly(source: Path, folder: Path) -> None:
    with (source.parent / "calls").open("a") as calls:
        calls.write("x")
    time.sleep(0.2)
    (folder / "content").write_bytes(source.read_bytes())


def test_a_killed_conversion_leaves_nothing_that_counts(source: Path, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(_forever, source, tmp_path))
    process.start()
    while not list(source.parent.glob("base_model.converted.unfinished-*/content")):
        assert process.is_alive()
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (source.parent / "base_model.converted").exists()
    folder = converted(source, tmp_path, Counting())
    assert (folder / "content").read_bytes() == b"one"
    assert list(source.parent.glob("*unfinished*")) == []


def test_concurrent_conversions_run_once(source: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_run, args=(_slowly, source, tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (source.parent / "calls").read_text() == "x"
