"""Small artifacts for tests, whose files hold a few bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triton_diffusers.artifacts import Figures, Manifest
from triton_diffusers.artifacts.damage import describe

FIGURES = Figures(
    psnr={"image": 41.5, "variation": 36.0},
    side=512,
    seconds_per_step=0.5,
    eager_seconds_per_step=1.25,
    peak_bytes=900,
    eager_peak_bytes=2000,
)
FILES = {"unet/model.xml": b"<net/>", "unet/model.bin": b"weights", "vae_decoder/deep/model.bin": b""}


def manifest_of(folder: Path, **changes: Any) -> Manifest:
    """Return a manifest of the graphs in ``folder``."""
    graphs = {path.name: describe(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    fields: dict[str, Any] = {
        "fingerprint": "f" * 64,
        "engine": "openvino",
        "precision": "bfloat16",
        "graphs": graphs,
        "versions": {"openvino": "2026.4.1"},
        "machine": "x86-64 avx512",
        "created": "2026-01-01T00:00:00Z",
        "figures": FIGURES,
    }
    return Manifest(**{**fields, **changes})


def made(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write ``files`` into ``folder`` and return it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
