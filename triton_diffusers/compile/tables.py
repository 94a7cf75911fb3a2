"""Tables of what was built and of what is there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from triton_diffusers.artifacts import Artifact

_WIDTH = 160  # columns, where nobody says how many there are


@dataclass(frozen=True)
class Row:
    """An artifact, or what bears its name and cannot be read; ``misfit`` says why it cannot be used here, if so."""

    name: str
    artifact: Artifact | None
    misfit: str | None


def print_summary(artifact: Artifact) -> None:
    """What one artifact is worth, beside the eager engine."""
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
    """All artifacts of a folder."""
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
        if row.misfit is not None:  # a sentence, which a table would break
            print(row.misfit if row.name in row.misfit else f"{row.name}: {row.misfit}")


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False).print(table, markup=False)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "?"
