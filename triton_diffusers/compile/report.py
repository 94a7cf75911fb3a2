"""Comparison of images, and tables of artifacts."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from triton_diffusers.artifacts import Artifact

BEST = 100.0  # dB; stands for the infinite ratio of equal images
_WIDTH = 160  # columns, if the output is not a terminal


def psnr_of(one: Image.Image, other: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two 8-bit images, in dB; 0 if they differ in size."""
    if one.size != other.size:
        return 0.0
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    error = float(np.mean(difference**2))
    return min(BEST, 10 * math.log10(255**2 / error)) if error else BEST


def compare(one: Path, other: Path, names: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the lowest PSNR of each probe's images; ``names`` are the files in both folders."""
    return {
        probe: min(psnr_of(_read(one / file), _read(other / file)) for file in files) for probe, files in names.items()
    }


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


@dataclass(frozen=True)
class Row:
    """An artifact, or an unreadable folder with its name; ``misfit`` is the reason why it cannot be used here."""

    name: str
    artifact: Artifact | None
    misfit: str | None


def print_summary(artifact: Artifact) -> None:
    """Print the figures of one artifact beside the eager engine's."""
    manifest = artifact.manifest
    figures = manifest.figures
    table = Table(title=f"{artifact.folder}", title_justify="left", title_style="")
    for heading in ("", "eager float32", f"{manifest.engine} {manifest.precision}", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row(
        f"seconds per step ({figures.side}×{figures.side}, guidance)",
        f"{figures.eager_seconds_per_step:.3f}",
        f"{figures.seconds_per_step:.3f}",
        f"{figures.speed_up:.2f} times as fast",
    )
    table.add_row(
        "peak memory",
        _bytes(figures.eager_peak_bytes),
        _bytes(figures.peak_bytes),
        f"{_percent(figures.peak_bytes, figures.eager_peak_bytes)} of it",
    )
    for probe, value in figures.psnr.items():
        table.add_row(f"PSNR of {probe!r}", "", f"{value:.1f} dB", "")
    table.add_row("size", "", _bytes(manifest.bytes), f"{len(manifest.graphs)} graphs")
    _print(table)


def print_list(root: Path, rows: Sequence[Row]) -> None:
    """Print all artifacts of a folder."""
    if not rows:
        print(f"no artifacts in {root}")
        return
    table = Table(title=f"{root}", title_justify="left", title_style="")
    for heading in ("artifact", "s/step", "speed-up", "memory", "PSNR", "size", "built", "usable here"):
        table.add_column(heading, justify="right" if heading in ("s/step", "speed-up", "memory", "size") else "left")
    for row in rows:
        usable = "yes" if row.misfit is None else "no"
        if row.artifact is None:
            table.add_row(row.name, "", "", "", "", "", "", usable)
            continue
        manifest = row.artifact.manifest
        figures = manifest.figures
        table.add_row(
            row.name,
            f"{figures.seconds_per_step:.3f}",
            f"{figures.speed_up:.2f}",
            _bytes(figures.peak_bytes),
            f"{figures.lowest_psnr:.1f} dB",
            _bytes(manifest.bytes),
            manifest.created.replace("+00:00", "Z"),
            usable,
        )
    _print(table)
    for row in rows:
        if row.misfit is not None:  # a sentence, which a table would wrap
            print(row.misfit if row.name in row.misfit else f"{row.name}: {row.misfit}")


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False).print(table, markup=False)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "?"
