"""Models and checkpoints that runners have announced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from triton_diffusers.api.description import ModelDescription
from triton_diffusers.gateway.jobs.job import DEFAULT_POOL
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.submission import MODELS


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model directory that the runners of a pool serve."""

    pool: str
    description: ModelDescription

    @property
    def name(self) -> str:
        """Return the checkpoint's name."""
        return self.description.name


@dataclass(frozen=True, slots=True)
class Fleet:
    """The runners that are alive: ``models`` are ready at one of them, in the order of the contract."""

    models: Sequence[str]
    checkpoints: Sequence[Checkpoint]

    def checkpoint(self, name: str = "") -> Checkpoint | None:
        """Return the checkpoint with a name, or the first one; None if there is none."""
        return next((each for each in self.checkpoints if name in ("", each.name)), None)


async def fleet_of(table: JobTable) -> Fleet:
    """Return what the runners have announced. The pool that all requests go to by default comes first."""
    announced = sorted(
        await table.call(table.store.directory.announcements), key=lambda each: (each.pool != DEFAULT_POOL, each.pool)
    )
    ready = {model for each in announced if each.pool == DEFAULT_POOL for model in each.models}
    checkpoints: dict[str, Checkpoint] = {}
    for each in announced:
        description = ModelDescription.from_json(each.description)
        checkpoints.setdefault(description.name, Checkpoint(each.pool, description))
    return Fleet([name for name in MODELS if name in ready], list(checkpoints.values()))
