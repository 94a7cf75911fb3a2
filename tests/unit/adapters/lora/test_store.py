"""Paths of requests stay in the model directory, and only harmless files are read, once."""

from __future__ import annotations

import os
import pickle
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from tests import lora_files
from triton_diffusers.adapters.lora.store import LoraStore
from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.util.cache import LruCache

Targets = Mapping[str, tuple[int, ...]]
MEGABYTE = 2**20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def store(root: Path, targets: Targets) -> LoraStore:
    return LoraStore(root, targets, cache=LruCache(MEGABYTE), max_file_bytes=MEGABYTE)


@pytest.fixture
def tensors(targets: Targets) -> lora_files.Tensors:
    return lora_files.peft(lora_files.random_weights(targets, 2, 0))


def test_files_in_folders_and_in_either_format(store: LoraStore, root: Path, tensors: lora_files.Tensors) -> None:
    lora_files.save(root / "lora" / "deep er" / "红苹果.safetensors", tensors)
    torch.save(tensors, root / "lora" / "a.bin")
    torch.save(tensors, root / "a.pt")
    loras = [store.get(path) for path in ("lora/deep er/红苹果.safetensors", "./lora//a.bin", "a.pt")]
    for lora in loras[1:]:
        assert lora.layers.keys() == loras[0].layers.keys()
        for path, layer in lora.layers.items():
            assert torch.equal(layer.down, loras[0].layers[path].down)
            assert torch.equal(layer.up, loras[0].layers[path].up)


@pytest.mark.parametrize("name", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"])
def test_path_matches_files_in_the_other_unicode_form(
    store: LoraStore, root: Path, tensors: lora_files.Tensors, name: str
) -> None:
    lora_files.save(root / name / f"{name}.safetensors", tensors)
    for form in ("NFC", "NFD"):
        assert store.get(unicodedata.normalize(form, f"{name}/{name}.safetensors")).layers
    with pytest.raises(NotFound):
        store.get("caff\N{LATIN SMALL LETTER E WITH ACUTE}.safetensors")


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"])
def test_a_folder_is_the_weights_in_it(store: LoraStore, root: Path, tensors: lora_files.Tensors, name: str) -> None:
    (root / "folder").mkdir()
    if name.endswith(".bin"):
        torch.save(tensors, root / "folder" / name)
    else:
        lora_files.save(root / "folder" / name, tensors)
    assert store.get("folder").identity == store.get(f"folder/{name}").identity


def test_links_within_the_directory_are_followed(store: LoraStore, root: Path, tensors: lora_files.Tensors) -> None:
    lora_files.save(root / "blobs" / "1.safetensors", tensors)
    (root / "link").symlink_to("blobs")
    (root / "named.safetensors").symlink_to("link/1.safetensors")
    assert store.get("named.safetensors") is store.get("link/1.safetensors") is store.get("blobs/1.safetensors")


def test_a_model_directory_may_itself_be_a_link(
    root: Path, tmp_path: Path, tensors: lora_files.Tensors, targets: Targets
) -> None:
    lora_files.save(root / "a.safetensors", tensors)
    (tmp_path / "link").symlink_to(root)
    store = LoraStore(tmp_path / "link", targets, cache=LruCache(0), max_file_bytes=MEGABYTE)
    assert store.get("a.safetensors").layers


@pytest.mark.parametrize(
    "path",
    ["", "x" * 1025, "/a.safetensors", "//a.safetensors", "..", "../outside/a.safetensors", "lora/../a.safetensors",
     "lora/..", ".", "lora", "lora/pipe.safetensors", "lora/notes.txt", "lora/notes.ckpt"],
)  # fmt: skip
def test_paths_that_are_refused(store: LoraStore, root: Path, tensors: lora_files.Tensors, path: str) -> None:
    lora_files.save(root / "a.safetensors", tensors)
    lora_files.save(root.parent / "outside" / "a.safetensors", tensors)
    (root / "lora").mkdir()
    os.mkfifo(root / "lora" / "pipe.safetensors")
    for name in ("notes.txt", "notes.ckpt"):
        lora_files.save(root / "lora" / name, tensors)
    with pytest.raises(InvalidRequest, match=r"^lora_path: "):
        store.get(path)


@pytest.mark.parametrize(
    "path",
    ["missing.safetensors", "a.safetensors/b.safetensors", "a\0.safetensors", "\udc80.safetensors", "~/a.safetensors",
     "y" * 300 + ".safetensors", "．．/outside/a.safetensors", "..\\outside\\a.safetensors", "circle.safetensors"],
)  # fmt: skip
def test_a_missing_file_is_not_found(store: LoraStore, root: Path, tensors: lora_files.Tensors, path: str) -> None:
    lora_files.save(root / "a.safetensors", tensors)
    lora_files.save(root.parent / "outside" / "a.safetensors", tensors)
    (root / "circle.safetensors").symlink_to("circle.safetensors")
    with pytest.raises(NotFound, match=r"^lora_path: "):
        store.get(path)


def test_links_out_are_answered_alike_whether_or_not_anything_is_there(
    store: LoraStore, root: Path, tensors: lora_files.Tensors
) -> None:
    lora_files.save(root.parent / "outside" / "a.safetensors", tensors)
    (root / "out").symlink_to(root.parent / "outside")
    (root / "a.safetensors").symlink_to(root.parent / "outside" / "a.safetensors")
    (root / "b.safetensors").symlink_to(root.parent / "outside" / "b.safetensors")
    (root / "folder").mkdir()
    (root / "folder" / "pytorch_lora_weights.safetensors").symlink_to(root.parent / "outside" / "a.safetensors")
    for path in ("a.safetensors", "b.safetensors", "out/a.safetensors", "out/b.safetensors", "folder", "out"):
        with pytest.raises(NotFound) as caught:
            store.get(path)
        assert str(caught.value) == f"lora_path: {path!r} is not in the model directory"


class Harmful:
    """Makes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str, int], int], tuple[str, int]]:
        return os.open, (str(self.place), os.O_CREAT)


def test_a_pickle_that_runs_code_does_not(store: LoraStore, root: Path, tmp_path: Path) -> None:
    torch.save({"x": Harmful(tmp_path / "harm")}, root / "a.bin")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        store.get("a.bin")
    assert not (tmp_path / "harm").exists()


def test_files_that_are_not_what_they_should_be(store: LoraStore, root: Path, tensors: lora_files.Tensors) -> None:
    whole = lora_files.save(root / "a.safetensors", tensors).read_bytes()
    (root / "cut.safetensors").write_bytes(whole[:-10])
    (root / "empty.safetensors").write_bytes(b"")
    (root / "header.safetensors").write_bytes(b"\xff" * 64)
    (root / "empty.bin").write_bytes(b"")
    (root / "pickle.bin").write_bytes(pickle.dumps({"a": 1}))
    torch.save(tensors, root / "old.bin", _use_new_zipfile_serialization=False)
    torch.save([1, 2], root / "list.bin")
    torch.save({"a": 1}, root / "number.bin")
    torch.save(tensors, root / "whole.bin")
    (root / "cut.bin").write_bytes((root / "whole.bin").read_bytes()[:-10])
    for name in ("cut.safetensors", "empty.safetensors", "header.safetensors", "empty.bin", "pickle.bin", "old.bin",
                 "list.bin", "number.bin", "cut.bin"):  # fmt: skip
        with pytest.raises(InvalidRequest, match=f"^lora_path: '{name}' is invalid: "):
            store.get(name)


def test_an_archive_that_unpacks_to_much_is_not_unpacked(
    store: LoraStore, root: Path, tensors: lora_files.Tensors
) -> None:
    torch.save({**tensors, "zeros": torch.zeros(10 * MEGABYTE)}, root / "whole.bin")
    with zipfile.ZipFile(root / "whole.bin") as whole, zipfile.ZipFile(root / "bomb.bin", "w") as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry), zipfile.ZIP_DEFLATED)
    assert (root / "bomb.bin").stat().st_size < MEGABYTE
    with pytest.raises(InvalidRequest, match="compressed"):
        store.get("bomb.bin")


def test_large_files_are_not_opened(store: LoraStore, root: Path) -> None:
    with (root / "large.safetensors").open("wb") as file:
        file.truncate(MEGABYTE + 1)
    with pytest.raises(InvalidRequest, match="more than 1 MB"):
        store.get("large.safetensors")


def test_a_misfit_names_the_file_and_the_keys(store: LoraStore, root: Path) -> None:
    lora_files.save(root / "other.safetensors", {"lora_unet_nothing.lora_down.weight": torch.ones(2, 2)})
    with pytest.raises(InvalidRequest, match=r"other\.safetensors.*lora_unet_nothing") as caught:
        store.get("other.safetensors")
    assert caught.value.field == "lora_path"


def test_a_file_is_read_once_until_it_changes(store: LoraStore, root: Path, tensors: lora_files.Tensors) -> None:
    file = lora_files.save(root / "a.safetensors", tensors)
    first = store.get("a.safetensors")
    assert store.get("a.safetensors") is first
    os.utime(file, ns=(1, 1))
    second = store.get("a.safetensors")
    assert second is not first
    assert second.identity != first.identity


def test_the_least_recently_used_lora_is_evicted(root: Path, tensors: lora_files.Tensors, targets: Targets) -> None:
    for name in "abc":
        lora_files.save(root / f"{name}.safetensors", tensors)
    size = sum(tensor.nbytes for tensor in tensors.values())
    store = LoraStore(root, targets, cache=LruCache(2 * size), max_file_bytes=MEGABYTE)
    first, second = store.get("a.safetensors"), store.get("b.safetensors")
    assert first.nbytes == size
    assert store.get("a.safetensors") is first
    store.get("c.safetensors")
    assert store.get("a.safetensors") is first
    assert store.get("b.safetensors") is not second
