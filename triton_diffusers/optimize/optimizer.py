"""The background build and its outcome: built → loaded → swapped, or failed for a reason that the log states."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from triton_diffusers.engines import Engine
from triton_diffusers.optimize.choice import NamedEngine
from triton_diffusers.optimize.policy import Target
from triton_diffusers.optimize.process import BackgroundProcess
from triton_diffusers.settings import PREFIX, Settings
from triton_diffusers.util.memory import release_memory
from triton_diffusers.util.notice import NOTICE
from triton_diffusers.util.process import python

logger = logging.getLogger(__name__)

_LOG_PREFIX = "triton-diffusers: "  # of a build's lines
_STOP_TIMEOUT_SECONDS = 5.0  # for an engine that is still loading when the server stops


class OptimizerState(StrEnum):
    """The state of the optimizer."""

    IDLE = "idle"  # nothing to build
    BUILDING = "building"
    READY = "ready"  # built, loading
    SWAPPED = "swapped"
    FAILED = "failed"


class Choice(Protocol):
    """The part of ``EngineChoice`` that the optimizer uses."""

    @property
    def made(self) -> str:
        """Return the name of the first engine that serves."""

    @property
    def missing(self) -> Target | None:
        """Return the engine to build, if any."""

    def make_built(self, target: Target) -> NamedEngine:
        """Return the engine after its build."""


class Observer(Protocol):
    """A listener, called by the optimizer's threads; must not block or raise."""

    def engine_changed(self, name: str) -> None:
        """Record that the engine ``name`` serves from now on."""

    def optimizer_changed(self, state: OptimizerState, target: Target | None, failure: str) -> None:
        """Record a new state; ``failure`` is the reason if the state is ``FAILED``."""


class Optimizer:
    """Builds the missing engine, loads it and hands it to ``swap``, in its own thread. Tries once."""

    def __init__(
        self,
        choice: Choice,
        swap: Callable[[Engine], None],
        observers: Sequence[Observer],
        make_command: Callable[[Target], Sequence[str]],
        environment: Mapping[str, str],
    ) -> None:
        """``swap`` replaces the serving engine, or raises."""
        self._choice = choice
        self._serving = choice.made
        self._swap = swap
        self._observers = observers
        self._target = target = choice.missing
        self._build = BackgroundProcess(make_command(target), environment, _log) if target is not None else None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="optimizer", daemon=True)

    def start(self) -> None:
        """Report the initial state, and start the build if an engine is missing."""
        self._serve(self._serving)
        self._enter(OptimizerState.IDLE)
        if self._build is not None:
            self._thread.start()

    def stop(self) -> None:
        """Stop the build; returns when its process has ended."""
        self._stopping = True
        if self._build is not None:
            self._build.stop()
            self._thread.join(_STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        try:
            reason = self._optimize()
        except Exception as error:  # noqa: BLE001  # the serving engine must not be affected
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if reason is not None and not self._stopping:
            logger.error("%s is not used, %s continues to serve: %s", self._target, self._serving, reason)
            self._enter(OptimizerState.FAILED, reason)

    def _optimize(self) -> str | None:
        """Build, load and swap. Returns the reason of a failure, or None."""
        if self._target is None or self._build is None:
            return None
        logger.info("%s is being built in the background; %s serves meanwhile", self._target, self._serving)
        self._enter(OptimizerState.BUILDING)
        if (reason := self._build.run()) is not None:
            return reason.removeprefix(_LOG_PREFIX)
        self._enter(OptimizerState.READY)
        built = self._choice.make_built(self._target)
        self._swap(built.engine)
        release_memory()  # the memory of the previous engine's weights
        self._serve(built.name)
        self._enter(OptimizerState.SWAPPED)
        logger.log(NOTICE, "%s serves from now on", built.name)
        return None

    def _serve(self, name: str) -> None:
        self._serving = name
        for observer in self._observers:
            observer.engine_changed(name)

    def _enter(self, state: OptimizerState, failure: str = "") -> None:
        for observer in self._observers:
            observer.optimizer_changed(state, self._target, failure)


def _log(line: str) -> None:
    logger.info("build: %s", line.removeprefix(_LOG_PREFIX))


def build_command(settings: Settings, target: Target, *, force: bool) -> list[str]:
    """Return the command that builds ``target``; with ``force``, even if an artifact seems to fit."""
    command = [python(), "-m", "triton_diffusers", "build", "--model", str(settings.model_dir.absolute())]
    # Several models or servers may want the same artifact: one builds it, the others wait and use it.
    command += ["--wait", "--engine", target.engine]
    if target.precision:
        command += ["--precision", target.precision]
    return [*command, "--force"] if force else command


def build_environment(settings: Settings) -> Mapping[str, str]:
    """Return this process's environment with the settings that a build shares with the server."""
    shared = {"CACHE_DIR": str(settings.cache_dir.absolute()), "VAE": settings.vae}
    return {**os.environ, **{f"{PREFIX}{name}": value for name, value in shared.items()}}
