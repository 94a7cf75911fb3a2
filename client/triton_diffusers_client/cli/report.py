"""Output of the command line: tables, JSON documents, and lines on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from triton_diffusers_client.generation import Generation
from triton_diffusers_client.progress import Progress

_COLUMNS: dict[str, Callable[[Progress], str]] = {
    "JOB": lambda job: job.id,
    "TASK": lambda job: job.task_id,
    "MODEL": lambda job: job.model,
    "STATE": lambda job: job.state.value if job.position is None else f"{job.state.value}, {job.position} ahead",
    "STEPS": lambda job: f"{job.step}/{job.steps or '?'}",
    "IMAGES": lambda job: f"{job.images_done}/{job.image_num or '?'}",
    "SECONDS": lambda job: f"{job.elapsed_seconds:.1f}",
    "ERROR": lambda job: job.error_msg,
}


def print_table(jobs: Sequence[Progress]) -> None:
    """Print jobs, one a line; at a Triton a job's id is its task id."""
    columns = dict(_COLUMNS)
    if all(job.id == job.task_id for job in jobs):
        del columns["JOB"]
    rows = [list(columns), *([cell(job) for cell in columns.values()] for job in jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(document: object) -> None:
    """Print a JSON document."""
    print(json.dumps(document, ensure_ascii=False, indent=2))


def generation_fields(generation: Generation, paths: Iterable[Path], control_paths: Iterable[Path]) -> dict[str, Any]:
    """Return a generation as JSON; its images are the paths of their files."""
    fields = {field.name: getattr(generation, field.name) for field in dataclasses.fields(generation)}
    # Text, as on the wire: many readers of JSON cannot hold a whole number of 64 bits.
    files = {"images": [str(path) for path in paths], "control_images": [str(path) for path in control_paths]}
    return fields | files | {"seed": str(generation.seed)}


def progress_fields(progress: Progress) -> dict[str, Any]:
    """Return a job's progress as JSON."""
    return {
        field.name: getattr(progress, field.name) for field in dataclasses.fields(progress) if field.name != "preview"
    }


def say(message: str) -> None:
    """Print a line on stderr."""
    print(message, file=sys.stderr)
