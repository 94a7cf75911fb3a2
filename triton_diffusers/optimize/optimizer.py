"""The background build and what follows it: built → loaded → swapped, or failed, for one reason that the log states."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from triton_diffusers.engines import Engine
from triton_diffusers.optimize.named_engine import NamedEngine
from triton_diffusers.optimize.policy import Target
from triton_diffusers.optimize.process import BackgroundProcess
from triton_diffusers.settings import PREFIX, Settings
from triton_diffusers.util.memory import give_back
from triton_diffusers.util.notice import NOTICE
from triton_diffusers.util.process import python

logger = logging.getLogger(__name__)

_PROGRAM = "triton-diffusers: "  # what a build's lines begin with
_LAST_WAIT = 5.0  # seconds that an engine that is being loaded may take, once the server stops


class OptimizerState(StrEnum):
    """Where the optimizer stands."""

    IDLE = "idle"  # nothing is to be built
    BUILDING = "building"
    READY = "ready"  # built; being loaded
    SWAPPED = "swapped"
    FAILED = "failed"


class Choice(Protocol):
    """What the optimizer needs of ``EngineChoice``."""

    @property
    def made(self) -> str:
        """The name of the engine that serves at first."""

    @property
    def missing(self) -> Target | None:
        """What is to be built, if anything."""

    def make_built(self, target: Target) -> NamedEngine:
        """The engine, once it is built."""


class Observer(Protocol):
    """Is told what happens, by the optimizer's threads; must not block or raise."""

    def engine_changed(self, name: str) -> None:
        """From now on, the engine of this name serves."""

    def optimizer_changed(self, state: OptimizerState, target: Target | None, failure: str) -> None:
        """The optimizer has come to another state; ``failure`` says why, if it is the last one."""


class Optimizer:
    """Has what is missing built, loads it and hands it to ``swap``, in a thread of its own. Tries once."""

    def __init__(
        self,
        choice: Choice,
        swap: Callable[[Engine], None],
        observers: Sequence[Observer],
        make_command: Callable[[Target], Sequence[str]],
        environment: Mapping[str, str],
    ) -> None:
        """``swap`` has another engine take over, or raises."""
        self._choice = choice
        self._serving = choice.made
        self._swap = swap
        self._observers = observers
        self._target = target = choice.missing
        self._build = BackgroundProcess(make_command(target), environment, _log) if target is not None else None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="optimizer", daemon=True)

    def start(self) -> None:
        """Say how things stand, and begin if there is anything to build."""
        self._serve(self._serving)
        self._enter(OptimizerState.IDLE)
        if self._build is not None:
            self._thread.start()

    def stop(self) -> None:
        """End the build; returns when its process has ended."""
        self._stopping = True
        if self._build is not None:
            self._build.stop()
            self._thread.join(_LAST_WAIT)

    def _run(self) -> None:
        try:
            reason = self._optimize()
        except Exception as error:  # noqa: BLE001  # whatever it is, the engine that serves goes on
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if reason is not None and not self._stopping:
            logger.error("%s is not used, %s goes on serving: %s", self._target, self._serving, reason)
            self._enter(OptimizerState.FAILED, reason)

    def _optimize(self) -> str | None:
        """Why it has failed, or None."""
        if self._target is None or self._build is None:
            return None
        logger.info("%s is being built in the background; %s serves meanwhile", self._target, self._serving)
        self._enter(OptimizerState.BUILDING)
        if (reason := self._build.run()) is not None:
            return reason.removeprefix(_PROGRAM)
        self._enter(OptimizerState.READY)
        built = self._choice.make_built(self._target)
        self._swap(built.engine)
        give_back()  # the weights of the engine before
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
    logger.info("build: %s", line.removeprefix(_PROGRAM))


def build_command(settings: Settings, target: Target, *, anew: bool) -> list[str]:
    """What builds a target for the model that is served; ``anew``, even if there is one that seems to fit."""
    command = [python(), "-m", "triton_diffusers", "build", "--model", str(settings.model_dir.absolute())]
    # Two models of a server want the same artifact, and so may other servers: one builds it, and all have it.
    command += ["--wait", "--engine", target.engine]
    if target.precision:
        command += ["--precision", target.precision]
    return [*command, "--force"] if anew else command


def build_environment(settings: Settings) -> Mapping[str, str]:
    """The environment of a build: this one, with the settings that it shares with the server."""
    shared = {"CACHE_DIR": str(settings.cache_dir.absolute()), "VAE": settings.vae}
    return {**os.environ, **{f"{PREFIX}{name}": value for name, value in shared.items()}}
