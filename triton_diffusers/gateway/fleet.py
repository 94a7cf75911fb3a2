"""Models and checkpoints that runners have announced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from triton_diffusers.api.description import ModelDescription
from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.job import DEFAULT_POOL
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.submission import ASSUMED, MODELS

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0


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


class ServedDefaults:
    """Defaults of the model that requests go to by default: size, steps and guidance; as runners announce them."""

    def __init__(self) -> None:
        self.current: ModelDefaults = ASSUMED

    async def follow(self, table: JobTable) -> None:
        """Look for announcements, for ever. Those of runners that are gone still hold: others will serve the same."""
        while True:
            try:
                await self.refresh(table)
            except TableUnavailable as error:
                logger.warning("the runners' announcements are not read: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def refresh(self, table: JobTable) -> None:
        """Look for announcements. Raises: TableUnavailable."""
        if (checkpoint := (await fleet_of(table)).checkpoint()) is not None:
            self.current = checkpoint.description.defaults
