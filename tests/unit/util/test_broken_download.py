"""Files that a download has left in place of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from triton_diffusers.adapters.files import WeightError, opened
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.weights import read_weights
from triton_diffusers.util.broken_download import download_fault

BROKEN = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "it is a Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><html>log in</html>", "it is a web page"),
    "xml": (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is a web page"),
    "empty": (b"", "it is empty"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt"])
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_download_is_named_by_every_reader(tmp_path: Path, kind: str, suffix: str) -> None:
    content, fault = BROKEN[kind]
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(LoadError, match=f"^{file} cannot be read: {fault}"):
        read_weights(file)
    with pytest.raises(WeightError, match=f"^the file cannot be read: {fault}"), opened(file, 2**20):
        pass


def test_weights_and_missing_files_have_no_download_fault(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(1)}, file)
    assert download_fault(file) is None
    assert download_fault(tmp_path / "missing") is None
    assert download_fault(tmp_path) is None
