"""The work folder: finished parts of an interrupted build are reused if they are intact and of equal inputs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests.waiting import WITHIN
from triton_diffusers.compile.errors import BuildError, BuildInProgress
from triton_diffusers.compile.work import WorkFolder

NAME = "openvino-bfloat16"
MADE_OF = {"fingerprint": "f", "versions": {"openvino": "1"}}


@pytest.fixture
def work(tmp_path: Path) -> Iterator[WorkFolder]:
    folder = WorkFolder(tmp_path, NAME)
    folder.open()
    folder.prepare(MADE_OF)
    yield folder
    folder.close()


def make(work: WorkFolder, graph: str, content: bytes = b"weights") -> None:
    (work.part(graph) / "model.bin").write_bytes(content)
    work.complete(graph)


def test_a_finished_graph_is_reused(work: WorkFolder) -> None:
    assert work.graph("unet") is None
    make(work, "unet")
    files = work.graph("unet")
    assert files is not None
    assert [(file.path, file.size) for file in files] == [("model.bin", 7)]
    work.prepare(MADE_OF)
    assert work.graph("unet") == files
    assert (work.artifact / "unet" / "model.bin").read_bytes() == b"weights"


def test_an_unfinished_graph_is_not_reused(work: WorkFolder) -> None:
    (work.part("unet") / "model.bin").write_bytes(b"half")
    assert work.graph("unet") is None
    assert list(work.part("unet").iterdir()) == [], "it starts over"
    (work.part("unet") / "model.bin").write_bytes(b"half")
    (work.folder / "unet.part").rename(work.artifact / "unet")  # killed just before it was marked
    assert work.graph("unet") is None
    make(work, "unet")
    assert work.graph("unet")


@pytest.mark.parametrize("content", [b"weightz", b"short", None])
def test_a_damaged_graph_is_not_reused(work: WorkFolder, content: bytes | None) -> None:
    make(work, "unet")
    path = work.artifact / "unet" / "model.bin"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert work.graph("unet") is None


def test_changed_inputs_discard_finished_parts(work: WorkFolder) -> None:
    make(work, "unet")
    work.prepare({**MADE_OF, "fingerprint": "another"})
    assert work.graph("unet") is None
    assert not (work.artifact / "unet").exists()
    make(work, "unet")
    work.prepare({**MADE_OF, "fingerprint": "another"}, force=True)
    assert work.graph("unet") is None


def test_a_compiler_that_writes_nothing_is_an_error(work: WorkFolder) -> None:
    work.part("unet")
    with pytest.raises(BuildError, match="unet: the compiler wrote no file"):
        work.complete("unet")


def test_the_lock_excludes_builds_of_one_artifact_only(work: WorkFolder, tmp_path: Path) -> None:
    second = WorkFolder(tmp_path, NAME)
    with pytest.raises(BuildInProgress, match=rf"another build of {NAME} is running in .* \(process {os.getpid()}\)"):
        second.open()
    other = WorkFolder(tmp_path, "openvino-int8")
    other.open()
    other.close()


def test_a_worker_that_outlives_its_build_holds_the_lock(tmp_path: Path) -> None:
    first = WorkFolder(tmp_path, NAME)
    first.open()
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(first.lock,), stdout=subprocess.DEVNULL
    )
    first.close()
    second = WorkFolder(tmp_path, NAME)
    try:
        with pytest.raises(BuildInProgress, match="another build"):
            second.open()
    finally:
        child.communicate(b"\n")
    second.open()
    second.close()


def test_a_wait_ends_when_the_other_build_is_killed(tmp_path: Path) -> None:
    first = WorkFolder(tmp_path, NAME)
    first.open()
    build = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(first.lock,))
    first.close()
    second = WorkFolder(tmp_path, NAME)
    with build, ThreadPoolExecutor() as pool:
        opened = pool.submit(second.open, wait=True)
        try:
            assert not wait([opened], 0.2).done
        finally:
            build.kill()
        opened.result(WITHIN)
    with pytest.raises(BuildInProgress, match=rf"\(process {os.getpid()}\)"):
        WorkFolder(tmp_path, NAME).open()
    second.close()


def test_the_other_build_may_delete_the_folder_during_a_wait(tmp_path: Path) -> None:

    first, second = WorkFolder(tmp_path, NAME), WorkFolder(tmp_path, NAME)
    first.open()
    first.prepare(MADE_OF)
    with ThreadPoolExecutor() as pool:
        opened = pool.submit(second.open, wait=True)
        try:
            assert not wait([opened], 0.1).done
            shutil.rmtree(first.folder)
        finally:
            first.close()
        opened.result(WITHIN)
    second.prepare(MADE_OF)
    second.close()
