"""What a build is going to do, found out before anything is done."""

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
    Here,
    fingerprint,
    misfit,
    store_folder,
)
from triton_diffusers.artifacts.manifest import FORMAT
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.layout import find_base_model
from triton_diffusers.compile.errors import BuildError, CannotBegin
from triton_diffusers.compile.options import LEAST_PSNR, PRECISIONS, SYNONYMS, BuildOptions
from triton_diffusers.downloads import SourceError, is_remote, resolve_model_dir
from triton_diffusers.engines.compilers import COMPILERS, Compiler
from triton_diffusers.engines.graphs import GRAPHS
from triton_diffusers.settings import Settings

_OSS = "oss://"
# Of the size of the weights, which are nearly always those of a model in half or single precision.
_SHARE_OF_WEIGHTS = {"float32": 1.0, "bfloat16": 0.5, "int8": 0.25}
_WEIGHTS = (".safetensors", ".bin", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``store`` is where the artifact is placed, on this machine.

    ``there`` is an artifact that fits already, ``misfit`` why the one that is there does not.
    """

    model_dir: Path
    vae: str
    cache_dir: Path
    here: Here
    engine: str
    precision: str
    store: ArtifactStore
    there: Artifact | None
    misfit: str
    min_psnr: float
    calibrated: tuple[str, ...]
    graphs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the artifact."""
        return f"{self.engine}-{self.precision}"

    @property
    def made_of(self) -> Mapping[str, Any]:
        """What graphs are built from; those of an interrupted build are used if it was the same."""
        return {"format": FORMAT, "name": self.name, **vars(self.here)}

    def fitting(self) -> Artifact | None:
        """The artifact that is there by now and fits, if any."""
        return _existing(self.store, self.engine, self.precision, self.here)[0]


def make_plan(options: BuildOptions, settings: Settings) -> Plan:
    """Fetch the model, if it is elsewhere, and look at what is there. Raises ``BuildError``."""
    compiler = find_compiler(options.engine)
    precision = _precision(options, compiler)
    model_dir = fetch(options.model, settings)
    here = here_of(compiler, model_dir, settings.vae)
    store = store_of(options.out, model_dir, settings, here.fingerprint)
    there, why = _existing(store, options.engine, precision, here)
    return Plan(
        model_dir=model_dir,
        vae=settings.vae,
        cache_dir=settings.cache_dir.expanduser().absolute(),
        here=here,
        engine=options.engine,
        precision=precision,
        store=store,
        there=None if options.force else there,
        misfit=why,
        min_psnr=LEAST_PSNR[precision] if options.min_psnr is None else options.min_psnr,
        calibrated=compiler.calibrated(precision),
        graphs=tuple(GRAPHS),
    )


def find_compiler(name: str) -> Compiler:
    """The compiler of an engine. Raises ``CannotBegin`` if there is none of that name or its package is missing."""
    try:
        compiler: Compiler = COMPILERS[name]()
    except KeyError as error:
        raise CannotBegin(f"--engine {error.args[0]}") from error
    except ImportError as error:
        raise CannotBegin(str(error)) from error
    return compiler


def fetch(model: str, settings: Settings) -> Path:
    """The model directory, on this machine. Raises ``CannotBegin``."""
    try:
        return resolve_model_dir(model, settings).absolute()
    except SourceError as error:
        raise CannotBegin(str(error)) from error


def here_of(compiler: Compiler, model_dir: Path, vae: str) -> Here:
    """What an artifact of this compiler has to fit; ``vae`` is the setting. Raises ``CannotBegin`` without a model."""
    try:
        print_of_weights = fingerprint(model_dir, vae)
    except (LoadError, ArtifactError) as error:
        raise CannotBegin(str(error)) from error
    return Here(fingerprint=print_of_weights, machine=compiler.machine(), versions=dict(compiler.versions()))


def store_of(out: str, model_dir: Path, settings: Settings, model: str) -> ArtifactStore:
    """Where artifacts are placed: in ``out``, else in the model directory.

    What is to be uploaded is placed in the cache, under the fingerprint ``model``, until it is. Raises ``CannotBegin``.
    """
    if out.startswith(_OSS):
        return ArtifactStore(settings.cache_dir.expanduser().absolute() / "built" / model[:16] / OPTIMIZED_MODEL)
    if is_remote(out):
        raise CannotBegin(f"--out {out}: a directory or oss://bucket/prefix is expected")
    return ArtifactStore(store_folder(Path(out or model_dir).absolute()))


def check_space(plan: Plan, there: int) -> None:
    """Raises ``BuildError`` if the disk has obviously no room for the artifact, ``there`` bytes of which are there."""
    base = find_base_model(plan.model_dir, plan.vae).path
    weights = sum(
        path.stat().st_size
        for path in (base.rglob("*") if base.is_dir() else [base])
        if path.suffix in _WEIGHTS and path.is_file()
    )
    needed = int(weights * _SHARE_OF_WEIGHTS[plan.precision]) - there
    free = shutil.disk_usage(plan.store.root).free
    if free < needed:
        raise BuildError(
            f"{plan.store.root} has {free / 1e9:.2f} GB of room; the build of {plan.name} wants about "
            f"{needed / 1e9:.2f} GB; make room, or name another place with --out"
        )


def _precision(options: BuildOptions, compiler: Compiler) -> str:
    known = tuple(name for name in PRECISIONS if name in compiler.precisions)
    precision = SYNONYMS.get(options.precision, options.precision) or compiler.precisions[0]
    if precision not in known:
        raise CannotBegin(f"--precision {options.precision}: {options.engine} has {', '.join(known)} on this machine")
    return precision


def _existing(store: ArtifactStore, engine: str, precision: str, here: Here) -> tuple[Artifact | None, str]:
    try:
        found = store.find(engine, precision)
    except ArtifactError as error:
        return None, str(error)
    if found is None:
        return None, ""
    why = misfit(found, here)
    return (found, "") if why is None else (None, why)
