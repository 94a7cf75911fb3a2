"""Every preprocessor on files in the published layouts, and its errors."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.preprocess import weights
from triton_diffusers.errors import EngineFailure, InvalidImage, InvalidRequest, NotFound
from triton_diffusers.preprocess import PREPROCESSORS, WEIGHTS
from triton_diffusers.preprocess.canny import Canny
from triton_diffusers.preprocess.preprocessors import Preprocessors
from triton_diffusers.preprocess.registry import Pixels
from triton_diffusers.preprocess.seg import PALETTE
from triton_diffusers.settings import Settings

CPU = torch.device("cpu")
NAMES = {"canny", "depth", "hed", "lineart", "mlsd", "none", "normal", "openpose", "scribble", "seg", "tile"}


def test_all_names_are_registered() -> None:
    assert set(PREPROCESSORS) == NAMES
    assert set(WEIGHTS) == NAMES - {"canny", "none", "tile"}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_processing_keeps_the_size_and_is_deterministic(
    preprocessors: Preprocessors, pixels: Pixels, name: str
) -> None:
    before = pixels.copy()
    first, second = (preprocessors.process(name, pixels) for _ in range(2))
    assert first.shape == pixels.shape
    assert first.dtype == np.uint8
    assert first.std() > 1, "the image is not empty"
    assert (first == second).all()
    assert (pixels == before).all(), "the input is unchanged"


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 200), (200, 3)])
def test_odd_shapes_keep_their_size(preprocessors: Preprocessors, name: str, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    assert preprocessors.process(name, image).shape == image.shape


@pytest.mark.parametrize("name", ["canny", "depth", "hed", "lineart", "mlsd", "scribble"])
def test_control_images_are_grey(preprocessors: Preprocessors, pixels: Pixels, name: str) -> None:
    control = preprocessors.process(name, pixels)
    assert (control == control[:, :, :1]).all()
    if name in ("canny", "mlsd", "scribble"):
        assert set(np.unique(control)) == {0, 255}


def test_canny_matches_opencv(pixels: Pixels) -> None:
    assert (Canny().process(pixels)[:, :, 1] == cv2.Canny(pixels, 100, 200)).all()
    assert (Canny(low=10, high=20).process(pixels)[:, :, 1] == cv2.Canny(pixels, 10, 20)).all()


@pytest.mark.parametrize("name", ["tile", "none"])
def test_tile_and_none_return_the_image(preprocessors: Preprocessors, pixels: Pixels, name: str) -> None:
    assert (preprocessors.process(name, pixels) == pixels).all()


def test_scribble_follows_hed(preprocessors: Preprocessors, pixels: Pixels) -> None:
    scribble = preprocessors.process("scribble", pixels)[:, :, 0] > 0
    surely = preprocessors.process("hed", pixels)[:, :, 0].astype(int)
    assert surely[scribble].mean() > surely[~scribble].mean()


def test_depth_uses_the_whole_range(preprocessors: Preprocessors, pixels: Pixels) -> None:
    depth = preprocessors.process("depth", pixels)
    assert depth.min() <= 2
    assert depth.max() >= 253


def test_seg_uses_the_colours_of_ade20k(preprocessors: Preprocessors, pixels: Pixels) -> None:
    known = {tuple(colour) for colour in PALETTE.tolist()}
    assert {tuple(colour) for colour in preprocessors.process("seg", pixels).reshape(-1, 3).tolist()} <= known
    # Wall, building, sky; the last is flag.
    assert PALETTE[[0, 1, 2, 149]].tolist() == [[120, 120, 120], [180, 120, 120], [6, 230, 230], [92, 0, 255]]


def test_openpose_without_people_is_black(tmp_path: Path, pixels: Pixels) -> None:
    root = tmp_path / "preprocessors"
    weights.write_people(root, label=1)
    weights.write_pose(root)
    assert not Preprocessors(Settings(model_dir=tmp_path), CPU).process("openpose", pixels).any()


@pytest.mark.parametrize("name", ["", "HED", "../hed", "hed\0", "__class__", "canny " * 1000, "annotators/x.pth", "é"])
def test_unknown_names_are_an_error(preprocessors: Preprocessors, pixels: Pixels, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"process_func: .* is invalid: known: canny, depth, hed, ") as caught:
        preprocessors.process(name, pixels)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("shape", [(1, 2049), (2049, 1), (1025, 1025), (0, 5)])
def test_invalid_sizes_are_an_error(preprocessors: Preprocessors, shape: tuple[int, int]) -> None:
    with pytest.raises(InvalidImage, match=f"{shape[1]}×{shape[0]}"):
        preprocessors.process("canny", np.zeros((*shape, 3), np.uint8))


MISSING = {
    "depth": ("depth/config.json", "Intel/dpt-hybrid-midas"),
    "hed": ("annotators/ControlNetHED.pth", "lllyasviel/Annotators"),
    "lineart": ("annotators/sk_model.pth", "lllyasviel/Annotators"),
    "mlsd": ("annotators/mlsd_large_512_fp32.pth", "lllyasviel/Annotators"),
    "normal": ("depth/config.json", "Intel/dpt-hybrid-midas"),
    "openpose": ("people/config.json", "PekingU/rtdetr_r18vd_coco_o365"),
    "scribble": ("annotators/ControlNetHED.pth", "lllyasviel/Annotators"),
    "seg": ("segmentation/config.json", "openmmlab/upernet-convnext-small"),
}


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_missing_weights_are_an_error(
    tmp_path: Path, pixels: Pixels, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, repository = MISSING[name]
    with pytest.raises(NotFound) as caught:
        Preprocessors(Settings(model_dir=tmp_path), CPU).process(name, pixels)
    assert str(caught.value) == (
        f"process_func: {name!r} needs preprocessors/{path} of {repository}; on the server, get it with: "
        f"triton-diffusers fetch-preprocessors {name}"
    )
    assert len(str(caught.value)) <= 200, "the maximum length of an error_msg of the API"
    assert str(tmp_path / "preprocessors" / path) in caplog.text


def test_the_preprocessors_folder_can_be_set(model_dir: Path, tmp_path: Path, pixels: Pixels) -> None:
    settings = Settings(model_dir=tmp_path, preprocessors=str(model_dir / "preprocessors"))
    assert Preprocessors(settings, CPU).process("hed", pixels).any()


def unreadable(root: Path, name: str, pixels: Pixels, caplog: pytest.LogCaptureFixture) -> str:
    """Return the log of weights that cannot be loaded; the caller gets less."""
    with pytest.raises(EngineFailure) as caught:
        Preprocessors(Settings(model_dir=root.parent), CPU).process(name, pixels)
    assert "cannot be loaded; the server's log has the reason" in str(caught.value)
    assert str(root) not in str(caught.value)
    return caplog.text


class _Code:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("was-run",)


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps(_Code())])
def test_a_damaged_or_hostile_file_is_not_run(
    tmp_path: Path, pixels: Pixels, content: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "preprocessors"
    (root / "annotators").mkdir(parents=True)
    (root / "annotators" / weights.HED).write_bytes(content)
    assert f"{weights.HED} cannot be loaded" in unreadable(root, "hed", pixels, caplog)
    assert not (tmp_path / "was-run").exists()


def test_weights_of_another_network_are_an_error(
    tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "preprocessors"
    weights.write_annotator(root, weights.LINEART).rename(root / "annotators" / weights.MLSD)
    assert "Missing key(s)" in unreadable(root, "mlsd", pixels, caplog)


def test_only_unused_tensors_may_be_missing(tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture) -> None:
    """The published DPT-Hybrid lacks an unused residual; all other tensors are required."""
    root = tmp_path / "preprocessors"
    file = weights.write_depth(root) / "model.safetensors"
    tensors = load_file(file)
    unused = [name for name in tensors if name.startswith("neck.fusion_stage.layers.0.residual_layer1.")]
    assert unused
    save_file({name: tensor for name, tensor in tensors.items() if name not in unused}, file, {"format": "pt"})
    assert Preprocessors(Settings(model_dir=tmp_path), CPU).process("depth", pixels).any()
    del tensors["head.head.0.weight"]
    save_file(tensors, file, {"format": "pt"})
    assert "it has no tensor head.head.0.weight (1 missing)" in unreadable(root, "depth", pixels, caplog)


def test_a_model_may_be_in_pickle_format(model_dir: Path, tmp_path: Path, pixels: Pixels) -> None:
    expected = Preprocessors(Settings(model_dir=model_dir), CPU).process("depth", pixels)
    folder = tmp_path / "preprocessors" / "depth"
    shutil.copytree(model_dir / "preprocessors" / "depth", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert (Preprocessors(Settings(model_dir=tmp_path), CPU).process("depth", pixels) == expected).all()


def test_code_in_a_folder_is_not_run(tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "preprocessors"
    folder = weights.write_depth(root)
    (folder / "evil.py").write_text("raise SystemExit('was run')")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "evil"
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForDepthEstimation": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "trust_remote_code" in unreadable(root, "depth", pixels, caplog)


def test_a_segmentation_with_other_classes_is_an_error(
    tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "preprocessors"
    weights.write_segmentation(root, classes=19)
    assert "it knows 19 classes, not the 150 of ADE20K" in unreadable(root, "seg", pixels, caplog)


def test_a_missing_package_is_an_error(
    preprocessors: Preprocessors, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "triton_diffusers.preprocess.canny")
    with pytest.raises(EngineFailure, match=r"'canny' needs the package 'cv2'; .*'triton-diffusers\[controlnet\]'"):
        preprocessors.process("canny", pixels)


def test_a_network_is_cached(model_dir: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda file, **options: loads.append(file) or load(file, **options))
    kept = Preprocessors(Settings(model_dir=model_dir), CPU)
    for name in ("hed", "lineart", "scribble", "hed"):
        kept.process(name, pixels)
    assert len(loads) == 2
    forgetful = Preprocessors(Settings(model_dir=model_dir, preprocessor_cache_megabytes=0), CPU)
    for name in ("hed", "hed", "lineart", "scribble"):
        forgetful.process(name, pixels)
    assert len(loads) == 5
