"""The engine processes of a server, started beside ``tritonserver``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType

from triton_diffusers.engine_process.address import EngineAddress, engine_addresses
from triton_diffusers.engine_process.supervisor import EngineSupervisor
from triton_diffusers.launcher.logs import ServerOutput
from triton_diffusers.launcher.repository import Repository
from triton_diffusers.settings import Settings


class EngineProcesses:
    """A context manager that runs the engines of a repository's models: one for each device and group of settings."""

    def __init__(self, repository: Repository, environment: Mapping[str, str], hang_seconds: float) -> None:
        """``environment`` holds settings in addition to those of this process's environment."""
        supervisors: dict[EngineAddress, EngineSupervisor] = {}
        for model in repository.models.values():
            if not model.needs_engine:
                continue
            for address in engine_addresses(Settings.read(model.settings, environment)):
                if address in supervisors:  # another model's, whose engine this one shares
                    continue
                supervisors[address] = EngineSupervisor(
                    address,
                    {**os.environ, **environment, **Settings.as_environment(model.settings)},
                    hang_seconds=hang_seconds,
                    on_line=ServerOutput(),
                )
        self._supervisors = tuple(supervisors.values())

    @property
    def failure(self) -> str:
        """Why an engine cannot be loaded; empty if all can, as far as is known."""
        return next((supervisor.failure for supervisor in self._supervisors if supervisor.failure), "")

    def __enter__(self) -> EngineProcesses:
        for supervisor in self._supervisors:
            supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for supervisor in self._supervisors:
            supervisor.stop()
