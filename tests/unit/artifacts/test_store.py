"""The folder of artifacts: complete ones or none after any crash, and manifests are never trusted unchecked."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.artifacts.samples import FILES, made, manifest_of
from triton_diffusers.artifacts import (
    Artifact,
    ArtifactError,
    ArtifactStore,
    BuildEnvironment,
    damage,
    misfit,
    store_folder,
)
from triton_diffusers.artifacts import store as store_module

NAME = "openvino-bfloat16"
ENVIRONMENT = BuildEnvironment(fingerprint="f" * 64, machine="x86-64 avx512", versions={"openvino": "2026.4.1"})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "optimized_model")


def placed(store: ArtifactStore, tmp_path: Path, files: dict[str, bytes] = FILES, **changes: Any) -> Artifact:
    folder = made(tmp_path / "work", files)
    return store.place(folder, manifest_of(folder, **changes))


def changed_manifest(artifact: Artifact, **changes: Any) -> None:
    path = artifact.folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_placed_artifact_is_found(store: ArtifactStore, tmp_path: Path) -> None:
    assert store.all() == {}
    assert store.find("openvino", "bfloat16") is None
    artifact = placed(store, tmp_path)
    assert not (tmp_path / "work").exists()
    assert store.find("openvino", "bfloat16") == artifact
    assert store.find("openvino", "int8") is None
    assert store.all() == {NAME: artifact}
    assert artifact.folder == store.root / NAME
    assert {name: (artifact.folder / name).read_bytes() for name in FILES} == FILES
    assert artifact.manifest.bytes == sum(map(len, FILES.values()))
    assert misfit(artifact, ENVIRONMENT) is None
    assert damage(artifact.folder, artifact.manifest, full=True) is None


def test_an_unreadable_store_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for root in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(ArtifactError, match=f"{root} cannot be read: "):
            ArtifactStore(root).all()
    (tmp_path / "file").touch()
    assert ArtifactStore(tmp_path / "file").all() == {}


def test_an_inaccessible_artifact_is_an_error(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(ArtifactError, match=f"{store.root}/{NAME} cannot be read: Permission denied"):
        store.find("openvino", "bfloat16")


def test_placing_replaces_an_older_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    placed(store, tmp_path)
    artifact = placed(store, tmp_path, {"unet/new.bin": b"new"})
    assert store.all() == {NAME: artifact}
    assert sorted(path.name for path in artifact.folder.rglob("*")) == ["manifest.json", "new.bin", "unet"]
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".")] == [".lock"]


def test_a_folder_that_differs_from_its_manifest_is_not_placed(store: ArtifactStore, tmp_path: Path) -> None:
    before = placed(store, tmp_path)
    folder = made(tmp_path / "work")
    manifest = manifest_of(folder)
    (folder / "unet" / "model.bin").write_bytes(b"weighty")
    with pytest.raises(ArtifactError, match=r"openvino-bfloat16 was not placed: unet/model\.bin is damaged"):
        store.place(folder, manifest)
    assert store.all() == {NAME: before}


def test_a_failed_placement_keeps_the_older_artifact(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = placed(store, tmp_path)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == "work":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space left"):
        placed(store, tmp_path)
    assert store.all() == {NAME: before}


def test_a_crash_between_two_renames_is_recovered(store: ArtifactStore, tmp_path: Path) -> None:
    before = placed(store, tmp_path)
    before.folder.rename(store.root / f".replaced-{NAME}")
    made(store.root / ".removed-openvino-int8")
    assert store.find("openvino", "bfloat16") is None
    placed(store, tmp_path, precision="float32")
    assert store.find("openvino", "bfloat16") == before
    assert len([path for path in store.root.iterdir() if path.name.startswith(".")]) == 1, "the lock alone"


def test_only_names_of_artifacts_can_be_removed(store: ArtifactStore, tmp_path: Path) -> None:
    placed(store, tmp_path)
    store.remove(NAME)
    assert store.all() == {}
    for name in (NAME, ".lock", "..", "a/b", f"../{tmp_path.name}"):
        with pytest.raises(ArtifactError, match="has no artifact"):
            store.remove(name)
    assert tmp_path.is_dir()


def test_names_with_a_leading_dot_are_not_artifacts(store: ArtifactStore) -> None:
    made(store.root / ".work" / NAME)
    (store.root / "README").write_text("not a folder")
    assert store.all() == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged: it is not a manifest"),
        (b"\xff\x00", "is damaged: it is not a manifest"),
        (b"[1]", "is damaged: it is not a manifest"),
        (b"[" * 100_000, "is damaged: it is not a manifest"),
        (b'{"format": 5}', "is damaged: fingerprint: Field required"),
        (b'{"format": 2, "anything": "else"}', "has the format 2; this version reads format 5"),
        (b" " * (5 * 2**20), "is longer than"),
    ],
)
def test_an_invalid_manifest_is_an_error(store: ArtifactStore, content: bytes, said: str) -> None:
    made(store.root / NAME, {"manifest.json": content})
    with pytest.raises(ArtifactError, match=said):
        store.find("openvino", "bfloat16")
    error = store.all()[NAME]
    assert isinstance(error, ArtifactError)
    assert said in str(error)
    assert NAME in str(error)


def test_a_missing_manifest_is_an_error(store: ArtifactStore) -> None:
    made(store.root / NAME)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read: No such file"):
        store.find("openvino", "bfloat16")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a//b", "a/../b", "", ".hidden", "a\\b", "a\nb"])
def test_a_manifest_cannot_name_a_file_outside(store: ArtifactStore, tmp_path: Path, path: str) -> None:
    artifact = placed(store, tmp_path)
    changed_manifest(artifact, graphs={"unet": [{"path": path, "size": 1, "xxh3": "0" * 32}]})
    with pytest.raises(ArtifactError, match=r"is damaged: graphs\.unet\.0\.path: "):
        store.find("openvino", "bfloat16")


@pytest.mark.parametrize("graph", ["../unet", "/unet", "", ".."])
def test_a_manifest_cannot_name_a_graph_outside(store: ArtifactStore, tmp_path: Path, graph: str) -> None:
    artifact = placed(store, tmp_path)
    changed_manifest(artifact, graphs={graph: []})
    with pytest.raises(ArtifactError, match=r"is damaged: graphs\."):
        store.find("openvino", "bfloat16")


def test_a_renamed_artifact_is_an_error(store: ArtifactStore, tmp_path: Path) -> None:
    placed(store, tmp_path).folder.rename(store.root / "openvino-int8")
    with pytest.raises(ArtifactError, match="is invalid: its manifest is that of openvino-bfloat16"):
        store.find("openvino", "int8")


def test_a_misfit_has_a_reason(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = placed(store, tmp_path)

    def said(**changes: Any) -> str:
        return str(misfit(artifact, BuildEnvironment(**{**vars(ENVIRONMENT), **changes})))

    assert said(fingerprint="0" * 64) == (
        "openvino-bfloat16 was built from another model (fingerprint ffffffffffff, this model's is 000000000000)"
    )
    assert said(machine="arm") == (
        "openvino-bfloat16 was built for another machine (x86-64 avx512; this is arm)"
    )  # fmt: skip
    assert said(versions={"openvino": "2027.0"}) == (
        "openvino-bfloat16 was built with another version of openvino (2026.4.1; this is 2027.0)"
    )
    assert said(versions={}).endswith("another version of openvino (2026.4.1; this is none)")
    (artifact.folder / "unet" / "model.bin").write_bytes(b"short")
    assert said() == "openvino-bfloat16 is damaged: unet/model.bin has 5 bytes, not 7"
    (artifact.folder / "unet" / "model.bin").unlink()
    assert said() == "openvino-bfloat16 is damaged: unet/model.bin is missing"
    (artifact.folder / "unet" / "model.bin").symlink_to("model.xml")
    assert said() == "openvino-bfloat16 is damaged: unet/model.bin is not a file"


def test_a_changed_byte_is_found_by_its_checksum(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = placed(store, tmp_path)
    (artifact.folder / "unet" / "model.bin").write_bytes(b"weightz")
    assert misfit(artifact, ENVIRONMENT) is None
    assert damage(artifact.folder, artifact.manifest, full=True) == (
        "unet/model.bin is damaged: its checksum is different"
    )  # fmt: skip


def _place_for_ever(root: Path, work: Path) -> None:
    store_module._sync = lambda path: None  # for speed
    store = ArtifactStore(root)
    number = 0
    while True:
        number += 1
        folder = made(work / f"{os.getpid()}-{number}", {"unet/a.bin": b"%d" % number, "unet/b.bin": b"%d" % number})
        store.place(folder, manifest_of(folder))


def test_killed_builders_leave_complete_artifacts(store: ArtifactStore, tmp_path: Path) -> None:
    """Two builders place continuously, and one after another is killed."""
    context = multiprocessing.get_context("forkserver")  # this process may have PyTorch's threads
    context.set_forkserver_preload([__name__])
    builders = [context.Process(target=_place_for_ever, args=(store.root, tmp_path / "builders")) for _ in range(2)]
    for builder in builders:
        builder.start()
    try:
        while not store.all():
            assert all(builder.is_alive() for builder in builders)
            time.sleep(0.01)
        for turn in range(40):
            time.sleep(0.02)
            if turn % 8 == 7:
                os.kill(builders[turn % 2].pid or 0, signal.SIGKILL)
                builders[turn % 2].join()
                builders[turn % 2] = context.Process(target=_place_for_ever, args=(store.root, tmp_path / "builders"))
                builders[turn % 2].start()
    finally:
        for builder in builders:
            builder.kill()
            builder.join()
    last = placed(store, tmp_path, {"unet/model.bin": b"last"}, precision="float32")
    found = store.find("openvino", "bfloat16")
    assert found is not None, "no builder ever placed one"

    assert damage(found.folder, found.manifest, full=True) is None
    assert store.all() == {NAME: found, "openvino-float32": last}


def test_artifacts_of_a_checkpoint_file_lie_beside_it(tmp_path: Path) -> None:
    (file := tmp_path / "one.safetensors").touch()
    assert store_folder(file) == tmp_path / "one.optimized_model"
    assert store_folder(tmp_path) == tmp_path / "optimized_model"
