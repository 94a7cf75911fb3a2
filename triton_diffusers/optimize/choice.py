"""The engine that a model is served with: the best artifact that fits this model and this machine, or eager PyTorch.

Imports nothing of weight: a server begins with the choice, and has graphs loaded while it imports what runs them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import chain

from triton_diffusers.artifacts import (
    Artifact,
    ArtifactError,
    ArtifactStore,
    Here,
    Manifest,
    damage,
    fingerprint,
    misfit,
    store_folder,
)
from triton_diffusers.checkpoints.load import device_and_dtype, load_components
from triton_diffusers.engines import ENGINES, Engine
from triton_diffusers.engines.compilers import COMPILERS, PRECISIONS, Compiler, caches_of
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.optimize.named_engine import NamedEngine
from triton_diffusers.optimize.policy import AUTO, EAGER, Target, Wishes
from triton_diffusers.settings import PREFIX, Settings
from triton_diffusers.util.notice import NOTICE

logger = logging.getLogger(__name__)


class EngineChoice:
    """Finds and loads engines for one model. ``made`` is the name of the one that ``make`` has made."""

    def __init__(self, settings: Settings) -> None:
        """Raises ``SettingsError`` if the settings name no engine."""
        self._settings = settings
        self._wishes = Wishes.read(settings, PRECISIONS)
        self._store = ArtifactStore(store_folder(settings.model_dir))
        # Of the model as it was at the start: what is built from another one later must not take over.
        self._fingerprint = ""
        self._spoilt: set[str] = set()  # names of artifacts that seem to fit, and cannot be loaded
        self._attempts = self._usable()
        self.made = EAGER

    def begin(self) -> None:
        """Have the graphs of the best artifact loaded meanwhile: ``make`` goes on with them. Raises ``LoadError``."""
        first = next(self._attempts, None)
        self._attempts = chain([] if first is None else [first], self._attempts)

    def make(self, try_out: Callable[[Engine], None] = lambda engine: None) -> Engine:
        """The best engine that there is; what cannot be used is logged with the reason.

        ``try_out`` raises what is wrong with a loaded engine; the next best is made then. Raises ``LoadError``, and
        what ``try_out`` raises about the eager engine, the last one.
        """
        best = self._best(try_out)
        if best is None:
            engine: Engine = ENGINES[EAGER](load_components(self._settings))
            try_out(engine)
        else:
            engine, self.made = best.engine, best.name
        wished = self._wishes.engine
        if wished is not None and self._wishes.build is None and not wished.covers(*_parts(self.made)):
            logger.warning("%s is asked for, but there is no artifact to use; %s serves", wished, self.made)
        else:
            logger.log(NOTICE, "%s serves on %s", self.made, device_and_dtype(self._settings)[0])
        return engine

    @property
    def missing(self) -> Target | None:
        """What is to be built, since it is not what was made; None if there is nothing."""
        build = self._wishes.build
        engine, precision = _parts(self.made)
        if build is None or engine != build.engine:
            return build
        # Only here, where the compiler's package is there for certain, since its engine was made.
        return None if _exactly(build).precision == precision else build

    @property
    def anew(self) -> bool:
        """Whether the place of what is missing has something that cannot be used, though a build would see no fault.

        Building anew costs what an interrupted build has finished, so it must be for this.
        """
        build = self._wishes.build
        if build is None or not any(build.covers(*_parts(name)) for name in self._spoilt):
            return False
        return str(_exactly(build)) in self._spoilt

    def make_built(self, target: Target) -> NamedEngine:
        """The engine that was missing, once it is built.

        Raises ``ArtifactError``, also if the model is no longer that of the start, and what loading it raises.
        """
        exact = _exactly(target)
        found = self._store.find(exact.engine, exact.precision or "")
        if found is None:
            raise ArtifactError(f"{self._store.root} has no artifact {exact}")
        self._check(found)
        built = self._made(found.manifest.name, self._begun(found))
        # Looked at last: the embeddings and the safety checker were read just now, from what is there now.
        if fingerprint(self._settings.model_dir, self._settings.vae) != self._fingerprint:
            raise ArtifactError(f"the weights in {self._settings.model_dir} have changed since the start")
        return built

    def _best(self, try_out: Callable[[Engine], None]) -> NamedEngine | None:
        attempts, self._attempts = self._attempts, self._usable()
        for name, graphs in attempts:
            try:
                made = self._made(name, graphs)
                try_out(made.engine)
                return made
            except Exception as error:  # noqa: BLE001  # the libraries raise what they like about a file
                self._spoilt.add(name)
                _refuse(name, error)
        return None

    def _usable(self) -> Iterator[tuple[str, LoadingGraphs]]:
        """The artifacts that may serve and are whole, by name, the best first; each is loaded once it is asked for."""
        try:
            found = tuple(self._candidates())
            if found or self._wishes.build is not None:
                self._fingerprint = fingerprint(self._settings.model_dir, self._settings.vae)
        except ArtifactError as error:
            logger.warning("no compiled engine is used: %s", error)
            return
        for artifact in found:
            name = artifact.manifest.name
            try:
                self._check(artifact)
            except Exception as error:  # noqa: BLE001  # a compiler's library may be missing or broken
                _refuse(name, error)
                continue
            try:
                graphs = self._begun(artifact)
            except Exception as error:  # noqa: BLE001  # no artifact is worth a server that does not start
                self._spoilt.add(name)
                _refuse(name, error)
            else:
                yield name, graphs

    def _candidates(self) -> Iterator[Artifact]:
        """The artifacts that may serve: the one that is asked for by name first, then the fastest."""
        found = []
        for name, artifact in self._store.all().items():
            if isinstance(artifact, ArtifactError):
                _refuse(name, artifact)
            elif self._wishes.covers(artifact.manifest.engine, artifact.manifest.precision):
                found.append(artifact)
        build = self._wishes.build

        def rank(artifact: Artifact) -> tuple[bool, float]:
            manifest = artifact.manifest
            asked_for = build is not None and build.covers(manifest.engine, manifest.precision)
            return asked_for, manifest.figures.speed_up

        yield from sorted(found, key=rank, reverse=True)

    def _check(self, artifact: Artifact) -> None:
        """Raises ``ArtifactError`` if an artifact is not to be used here; reads none of its files."""
        manifest = artifact.manifest
        compiler: Compiler = COMPILERS[manifest.engine]()
        here = Here(fingerprint=self._fingerprint, machine=compiler.machine(), versions=compiler.versions())
        if reason := misfit(artifact, here):
            raise ArtifactError(reason)
        named = self._wishes.names(manifest.engine, manifest.precision)
        device = device_and_dtype(self._settings)[0].type
        if device != compiler.device and not (named and self._settings.device == AUTO):
            setting = f"{PREFIX}DEVICE={self._settings.device}"
            raise ArtifactError(f"{manifest.name} runs on {compiler.device}, and the device is {device} ({setting})")
        if not named:
            self._check_unasked(manifest, compiler)

    def _check_unasked(self, manifest: Manifest, compiler: Compiler) -> None:
        """Raises ``ArtifactError`` if an artifact is to be used only where a setting names its engine."""
        if_named = f"name it to use it: {PREFIX}ENGINE={manifest.name}"
        if compiler.artifacts_are_code:
            # A model directory may come from anybody, and must not bring programs that run because they lie in it.
            raise ArtifactError(f"{manifest.name} is a program; if you trust who built it, {if_named}")
        if self._settings.dtype not in (AUTO, manifest.precision):
            setting = f"{PREFIX}DTYPE={self._settings.dtype}"
            raise ArtifactError(f"{manifest.name} has another precision than {setting}; {if_named}")
        if 0 < manifest.figures.speed_up < 1:
            measured = f"{manifest.figures.speed_up:.2f} times as fast when it was built"
            raise ArtifactError(f"{manifest.name} is slower than the eager engine ({measured}); {if_named}")

    def _begun(self, artifact: Artifact) -> LoadingGraphs:
        """The graphs of an artifact that is to be used, while they load. Raises ``ArtifactError`` if it is damaged."""
        manifest = artifact.manifest
        # A second for gigabytes: weights that have changed on the disk give pictures that nobody would understand.
        if fault := damage(artifact.folder, manifest, full=True):
            raise ArtifactError(f"{manifest.name} is damaged: {fault}")
        folders = {graph: artifact.folder / graph for graph in manifest.graphs}
        caches = caches_of(self._settings.cache_dir, artifact.folder, manifest.graphs)
        return LoadingGraphs(manifest.engine, manifest.precision, folders, caches)

    def _made(self, name: str, graphs: LoadingGraphs) -> NamedEngine:
        from triton_diffusers.engines.compiled import load_compiled  # seconds, in which the graphs are loaded

        return NamedEngine(name, load_compiled(self._settings, graphs))


def _refuse(name: str, error: Exception) -> None:
    said = str(error) if isinstance(error, ArtifactError) else f"{name} cannot be loaded: {error}"
    logger.warning("not used: %s", " ".join(said.split()))


def _exactly(target: Target) -> Target:
    """The target with the precision that is meant."""
    return Target(target.engine, target.precision or COMPILERS[target.engine]().precisions[0])


def _parts(name: str) -> tuple[str, str]:
    """Engine and precision of an artifact."""
    engine, _, precision = name.partition("-")
    return engine, precision
