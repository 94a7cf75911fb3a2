"""The plan of a build, made before anything is changed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton_diffusers.artifacts import (
    OPTIMIZED_MODEL,
    Artifact,
    ArtifactError,
    ArtifactStore,
    BuildEnvironment,
    fingerprint,
    misfit,
    store_folder,
)
from triton_diffusers.artifacts.manifest import FORMAT
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.folder import read_index
from triton_diffusers.checkpoints.layout import find_base_model
from triton_diffusers.compile.errors import BuildError, CannotBegin
from triton_diffusers.compile.options import MIN_PSNR, PRECISIONS, SYNONYMS, BuildOptions
from triton_diffusers.downloads import SourceError, is_remote, resolve_model_dir
from triton_diffusers.downloads.buckets import FORMS, is_bucket
from triton_diffusers.engines.compilers import COMPILERS, Compiler
from triton_diffusers.engines.graphs import GRAPHS
from triton_diffusers.families.registry import family_of
from triton_diffusers.settings import Settings

# Relative to the size of the weights, which are usually in half or single precision.
_SHARE_OF_WEIGHTS = {"float32": 1.0, "bfloat16": 0.5, "int8": 0.25}
_WEIGHTS = (".safetensors", ".bin", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a build.

    ``store`` is where the artifact is placed, on this machine. ``existing`` is an artifact that fits already;
    ``misfit`` is the reason why an existing one does not.
    """

    model_dir: Path
    vae: str
    cache_dir: Path
    environment: BuildEnvironment
    engine: str
    precision: str
    store: ArtifactStore
    existing: Artifact | None
    misfit: str
    min_psnr: float
    calibrated: tuple[str, ...]
    graphs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of the artifact."""
        return f"{self.engine}-{self.precision}"

    @property
    def made_of(self) -> Mapping[str, Any]:
        """Return the inputs of the graphs; graphs of an interrupted build are reused if they are equal."""
        return {"format": FORMAT, "name": self.name, **vars(self.environment)}

    def fitting(self) -> Artifact | None:
        """Return the artifact that fits by now, if any."""
        return _find_existing(self.store, self.engine, self.precision, self.environment)[0]


def make_plan(options: BuildOptions, settings: Settings) -> Plan:
    """Return the plan, after downloading a remote model. Raises ``BuildError``."""
    compiler = find_compiler(options.engine)
    precision = _precision(options, compiler)
    model_dir = fetch(options.model, settings)
    environment = environment_of(compiler, model_dir, settings.vae)
    _check_family(find_base_model(model_dir, settings.vae).path)
    store = store_of(options.out, model_dir, settings, environment.fingerprint)
    existing, reason = _find_existing(store, options.engine, precision, environment)
    return Plan(
        model_dir=model_dir,
        vae=settings.vae,
        cache_dir=settings.cache_dir.expanduser().absolute(),
        environment=environment,
        engine=options.engine,
        precision=precision,
        store=store,
        existing=None if options.force else existing,
        misfit=reason,
        min_psnr=MIN_PSNR[precision] if options.min_psnr is None else options.min_psnr,
        calibrated=compiler.calibrated(precision),
        graphs=tuple(GRAPHS),
    )


def _check_family(base: Path) -> None:
    """Raise ``CannotBegin`` if compiled engines do not support the family of a diffusers folder."""
    if base.is_dir() and not (family := family_of(read_index(base))).compiles:
        raise CannotBegin(f"{base}: {family.name} is not supported by compiled engines yet; the eager engine serves it")


def find_compiler(name: str) -> Compiler:
    """Return an engine's compiler. Raises ``CannotBegin`` if it is unknown or its package is missing."""
    try:
        compiler: Compiler = COMPILERS[name]()
    except KeyError as error:
        raise CannotBegin(f"--engine: {error.args[0]}") from error
    except ImportError as error:
        raise CannotBegin(str(error)) from error
    return compiler


def fetch(model: str, settings: Settings) -> Path:
    """Return the model directory on this machine, downloaded if it is remote. Raises ``CannotBegin``."""
    try:
        return resolve_model_dir(model, settings).absolute()
    except SourceError as error:
        raise CannotBegin(str(error)) from error


def environment_of(compiler: Compiler, model_dir: Path, vae: str) -> BuildEnvironment:
    """Return what an artifact of this compiler must match; ``vae`` is the setting. Raises ``CannotBegin``."""
    try:
        weights = fingerprint(model_dir, vae)
    except (LoadError, ArtifactError) as error:
        raise CannotBegin(str(error)) from error
    return BuildEnvironment(fingerprint=weights, machine=compiler.machine(), versions=dict(compiler.versions()))


def store_of(out: str, model_dir: Path, settings: Settings, model: str) -> ArtifactStore:
    """Return the store of artifacts: in ``out``, else in the model directory.

    An artifact to be uploaded is built in the cache, under the fingerprint ``model``. Raises ``CannotBegin``.
    """
    if is_bucket(out):
        return ArtifactStore(settings.cache_dir.expanduser().absolute() / "built" / model[:16] / OPTIMIZED_MODEL)
    if is_remote(out):
        raise CannotBegin(f"--out: {out} is invalid: expected a directory, {FORMS}")
    return ArtifactStore(store_folder(Path(out or model_dir).absolute()))


def check_space(plan: Plan, present: int) -> None:
    """Raise ``BuildError`` if the disk is too small for the artifact; ``present`` of its bytes are written already."""
    base = find_base_model(plan.model_dir, plan.vae).path
    weights = sum(
        path.stat().st_size
        for path in (base.rglob("*") if base.is_dir() else [base])
        if path.suffix in _WEIGHTS and path.is_file()
    )
    needed = int(weights * _SHARE_OF_WEIGHTS[plan.precision]) - present
    free = shutil.disk_usage(plan.store.root).free
    if free < needed:
        raise BuildError(
            f"{plan.store.root}: not enough disk space: {free / 1e9:.2f} GB free, the build of {plan.name} needs about "
            f"{needed / 1e9:.2f} GB; free some space, or choose another place with --out"
        )


def _precision(options: BuildOptions, compiler: Compiler) -> str:
    known = tuple(name for name in PRECISIONS if name in compiler.precisions)
    precision = SYNONYMS.get(options.precision, options.precision) or compiler.precisions[0]
    if precision not in known:
        raise CannotBegin(
            f"--precision: {options.precision} is invalid: {options.engine} has {', '.join(known)} on this machine"
        )
    return precision


def _find_existing(
    store: ArtifactStore, engine: str, precision: str, environment: BuildEnvironment
) -> tuple[Artifact | None, str]:
    try:
        found = store.find(engine, precision)
    except ArtifactError as error:
        return None, str(error)
    if found is None:
        return None, ""
    reason = misfit(found, environment)
    return (found, "") if reason is None else (None, reason)
