"""The engine that a model is served with: the best artifact that fits the model and the machine, or eager PyTorch.

Imports nothing heavy: a server starts with the choice, and loads graphs while it imports the libraries that run them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from triton_diffusers.artifacts import (
    Artifact,
    ArtifactError,
    ArtifactStore,
    BuildEnvironment,
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
from triton_diffusers.optimize.policy import AUTO, EAGER, EnginePolicy, Target
from triton_diffusers.settings import PREFIX, Settings
from triton_diffusers.util.notice import NOTICE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class NamedEngine:
    """An engine; ``name`` is ``eager``, or that of its artifact, such as ``openvino-bfloat16``."""

    name: str
    engine: Engine


class EngineChoice:
    """Finds and loads engines for one model. ``made`` is the name of the engine that ``make`` has returned."""

    def __init__(self, settings: Settings) -> None:
        """Raise ``SettingsError`` if the engine settings are invalid."""
        self._settings = settings
        self._policy = EnginePolicy.read(settings, PRECISIONS)
        self._store = ArtifactStore(store_folder(settings.model_dir))
        # Of the model at the start: an artifact built from later weights must not take over.
        self._fingerprint = ""
        self._broken: set[str] = set()  # names of artifacts that seem to fit but cannot be loaded
        self._attempts = self._usable()
        self.made = EAGER

    def begin(self) -> None:
        """Start loading the graphs of the best artifact in the background; ``make`` continues. Raises ``LoadError``."""
        first = next(self._attempts, None)
        self._attempts = chain([] if first is None else [first], self._attempts)

    def make(self, try_out: Callable[[Engine], None] = lambda engine: None) -> Engine:
        """Return the best engine; log the reason for each artifact that cannot be used.

        ``try_out`` raises if a loaded engine is faulty; the next best is made then.

        Raises: LoadError: the model cannot be loaded. An exception of ``try_out`` for the eager engine is passed on.
        """
        best = self._best(try_out)
        if best is None:
            engine: Engine = ENGINES[EAGER](load_components(self._settings))
            try_out(engine)
        else:
            engine, self.made = best.engine, best.name
        engine_setting = self._policy.engine
        if engine_setting is not None and self._policy.build is None and not engine_setting.covers(*_parts(self.made)):
            logger.warning("%s was requested, but no artifact can be used; %s serves", engine_setting, self.made)
        else:
            logger.log(NOTICE, "%s serves on %s", self.made, device_and_dtype(self._settings)[0])
        return engine

    @property
    def missing(self) -> Target | None:
        """Return the engine to build because ``make`` did not find it; None if nothing is to be built."""
        build = self._policy.build
        engine, precision = _parts(self.made)
        if build is None or engine != build.engine:
            return build
        # Only after its engine was made: then the compiler's package is certainly installed.
        return None if _exactly(build).precision == precision else build

    @property
    def needs_force(self) -> bool:
        """True if a broken artifact occupies the place of the missing one, so that the build needs ``--force``.

        A forced build discards the finished parts of an interrupted one, so it must be for this reason only.
        """
        build = self._policy.build
        if build is None or not any(build.covers(*_parts(name)) for name in self._broken):
            return False
        return str(_exactly(build)) in self._broken

    def make_built(self, target: Target) -> NamedEngine:
        """Return the engine that was missing, after its build.

        Raises: ArtifactError: it cannot be used, or the model has changed since the start.
        """
        exact = _exactly(target)
        found = self._store.find(exact.engine, exact.precision or "")
        if found is None:
            raise ArtifactError(f"{self._store.root} has no artifact {exact}")
        self._check(found)
        built = self._load(found.manifest.name, self._start_loading(found))
        # Checked last: the embeddings and the safety checker were read just now, from the current files.
        if fingerprint(self._settings.model_dir, self._settings.vae) != self._fingerprint:
            raise ArtifactError(f"the weights in {self._settings.model_dir} have changed since the start")
        return built

    def _best(self, try_out: Callable[[Engine], None]) -> NamedEngine | None:
        attempts, self._attempts = self._attempts, self._usable()
        for name, graphs in attempts:
            try:
                made = self._load(name, graphs)
                try_out(made.engine)
                return made
            except Exception as error:  # noqa: BLE001  # libraries may raise anything about a broken file
                self._broken.add(name)
                _log_refusal(name, error)
        return None

    def _usable(self) -> Iterator[tuple[str, LoadingGraphs]]:
        """Yield the usable artifacts by name, the best first; each starts loading when it is requested."""
        try:
            found = tuple(self._candidates())
            if found or self._policy.build is not None:
                self._fingerprint = fingerprint(self._settings.model_dir, self._settings.vae)
        except ArtifactError as error:
            logger.warning("no compiled engine is used: %s", error)
            return
        for artifact in found:
            name = artifact.manifest.name
            try:
                self._check(artifact)
            except Exception as error:  # noqa: BLE001  # a compiler's library may be missing or broken
                _log_refusal(name, error)
                continue
            try:
                graphs = self._start_loading(artifact)
            except Exception as error:  # noqa: BLE001  # a broken artifact must not prevent the start
                self._broken.add(name)
                _log_refusal(name, error)
            else:
                yield name, graphs

    def _candidates(self) -> Iterator[Artifact]:
        """Yield the artifacts that may serve: the requested one first, then the fastest."""
        found = []
        for name, artifact in self._store.all().items():
            if isinstance(artifact, ArtifactError):
                _log_refusal(name, artifact)
            elif self._policy.covers(artifact.manifest.engine, artifact.manifest.precision):
                found.append(artifact)
        build = self._policy.build

        def rank(artifact: Artifact) -> tuple[bool, float]:
            manifest = artifact.manifest
            is_requested = build is not None and build.covers(manifest.engine, manifest.precision)
            return is_requested, manifest.figures.speed_up

        yield from sorted(found, key=rank, reverse=True)

    def _check(self, artifact: Artifact) -> None:
        """Raise ``ArtifactError`` if an artifact cannot be used here; reads none of its files."""
        manifest = artifact.manifest
        compiler: Compiler = COMPILERS[manifest.engine]()
        environment = BuildEnvironment(
            fingerprint=self._fingerprint, machine=compiler.machine(), versions=compiler.versions()
        )
        if reason := misfit(artifact, environment):
            raise ArtifactError(reason)
        named = self._policy.names(manifest.engine, manifest.precision)
        device = device_and_dtype(self._settings)[0].type
        if device != compiler.device and not (named and self._settings.device == AUTO):
            setting = f"{PREFIX}DEVICE={self._settings.device}"
            raise ArtifactError(f"{manifest.name} runs on {compiler.device}, and the device is {device} ({setting})")
        if not named:
            self._check_unasked(manifest, compiler)

    def _check_unasked(self, manifest: Manifest, compiler: Compiler) -> None:
        """Raise ``ArtifactError`` if an artifact may be used only where a setting names its engine."""
        if_named = f"name it to use it: {PREFIX}ENGINE={manifest.name}"
        if compiler.artifacts_are_code:
            # A model directory may come from anywhere; programs in it must not run without the operator's consent.
            raise ArtifactError(f"{manifest.name} is a program; if you trust its builder, {if_named}")
        if self._settings.dtype not in (AUTO, manifest.precision):
            setting = f"{PREFIX}DTYPE={self._settings.dtype}"
            raise ArtifactError(f"{manifest.name} has another precision than {setting}; {if_named}")
        if 0 < manifest.figures.speed_up < 1:
            measured = f"{manifest.figures.speed_up:.2f} times as fast when it was built"
            raise ArtifactError(f"{manifest.name} is slower than the eager engine ({measured}); {if_named}")

    def _start_loading(self, artifact: Artifact) -> LoadingGraphs:
        """Return the loading graphs of an artifact. Raises ``ArtifactError`` if it is damaged."""
        manifest = artifact.manifest
        # A second for gigabytes; corrupt weights would give wrong images without any error.
        if fault := damage(artifact.folder, manifest, full=True):
            raise ArtifactError(f"{manifest.name} is damaged: {fault}")
        folders = {graph: artifact.folder / graph for graph in manifest.graphs}
        caches = caches_of(self._settings.cache_dir, artifact.folder, manifest.graphs)
        return LoadingGraphs(manifest.engine, manifest.precision, folders, caches)

    def _load(self, name: str, graphs: LoadingGraphs) -> NamedEngine:
        from triton_diffusers.engines.compiled import load_compiled  # takes seconds, while the graphs load

        return NamedEngine(name, load_compiled(self._settings, graphs))


def _log_refusal(name: str, error: Exception) -> None:
    message = str(error) if isinstance(error, ArtifactError) else f"{name} cannot be loaded: {error}"
    logger.warning("not used: %s", " ".join(message.split()))


def _exactly(target: Target) -> Target:
    """Return the target with its default precision filled in."""
    return Target(target.engine, target.precision or COMPILERS[target.engine]().precisions[0])


def _parts(name: str) -> tuple[str, str]:
    """Return engine and precision of an artifact's name."""
    engine, _, precision = name.partition("-")
    return engine, precision
