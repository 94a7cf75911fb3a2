"""The command ``triton-diffusers build``: its output and exit codes."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from pathlib import Path

from triton_diffusers.artifacts import Artifact, ArtifactError, ArtifactStore, damage, misfit
from triton_diffusers.cli.build_arguments import options_of
from triton_diffusers.compile.builder import build
from triton_diffusers.compile.errors import BuildError, CannotBegin
from triton_diffusers.compile.options import SYNONYMS, BuildOptions
from triton_diffusers.compile.plan import Plan, environment_of, fetch, find_compiler, make_plan, store_of
from triton_diffusers.compile.progress import Progress, progress_for
from triton_diffusers.compile.report import Row, print_list, print_summary
from triton_diffusers.compile.upload import Upload
from triton_diffusers.downloads import is_remote
from triton_diffusers.downloads.buckets import is_bucket
from triton_diffusers.settings import Settings, SettingsError

log = logging.getLogger(__name__)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; return the exit code: 0, 1 if it failed, 2 if it could not begin."""
    logging.basicConfig(level=logging.INFO, format="triton-diffusers: %(message)s")
    try:
        settings = Settings.read()
        if chosen.list:
            return _list(chosen, settings)
        if chosen.verify:
            return _verify(chosen, settings)
        if chosen.remove:
            return _remove(chosen, settings)
        return _build(options_of(chosen), settings, progress_for())
    except SettingsError as error:
        return _complain(str(error), 2)
    except BuildError as error:
        return _complain(str(error), error.code)
    except ArtifactError as error:  # the folder of artifacts cannot be read
        return _complain(str(error), CannotBegin.code)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command resumes the build", 130)


def _build(options: BuildOptions, settings: Settings, progress: Progress) -> int:
    if options.dry_run and is_remote(options.model):
        print(f"would fetch {options.model}; what follows depends on it")
        return 0
    if options.wait and is_remote(options.out):
        # An upload removes the local artifact, which another build may be waiting for or using.
        raise CannotBegin(f"--out: {options.out} is invalid: --wait needs a directory")
    upload = Upload(options.out, settings) if is_bucket(options.out) else None
    plan = make_plan(options, settings)
    if options.dry_run:
        _tell(plan, upload)
        return 0
    if plan.misfit:
        progress.note(f"{plan.misfit}; rebuilding it")
    if plan.existing is not None:
        progress.note(f"{plan.name} exists already and fits; --force rebuilds it")
    artifact = plan.existing or build(plan, options, progress)
    print_summary(artifact)
    if upload is not None:
        with progress.stage(f"uploading to {upload.target}") as advance:
            upload.put(artifact, advance)
        # The uploaded copy replaces it.
        shutil.rmtree(artifact.folder, ignore_errors=True)
    return 0


def _tell(plan: Plan, upload: Upload | None) -> None:
    place = upload.target if upload else plan.store.root
    print(f"model        {plan.model_dir} (fingerprint {plan.environment.fingerprint[:12]})")
    print(f"artifact     {place}/{plan.name}")
    print(f"machine      {plan.environment.machine}")
    print(f"versions     {', '.join(f'{name} {number}' for name, number in plan.environment.versions.items())}")
    print(f"verified by  images, on average at least {plan.min_psnr:g} dB like the eager ones")
    if plan.existing is not None:
        print("it exists already and fits: nothing would be done")
        return
    if plan.misfit:
        print(f"replaces     {plan.misfit}")
    steps = ["calibrate"] * bool(plan.calibrated) + [f"compile {graph}" for graph in plan.graphs]
    print(f"would        {', '.join([*steps, 'draw eagerly', 'draw compiled', 'place', *['upload'] * bool(upload)])}")


def _list(chosen: argparse.Namespace, settings: Settings) -> int:
    model_dir, store = _place(chosen, settings)
    rows = [_row(model_dir, settings.vae, found) for found in _chosen(chosen, store)]
    print_list(store.root, rows)
    return 0


def _row(model_dir: Path, vae: str, found: tuple[str, Artifact | ArtifactError]) -> Row:
    name, artifact = found
    if isinstance(artifact, ArtifactError):
        return Row(name, None, str(artifact))
    try:
        return Row(
            name, artifact, misfit(artifact, environment_of(find_compiler(artifact.manifest.engine), model_dir, vae))
        )
    except BuildError as error:
        return Row(name, artifact, str(error))


def _verify(chosen: argparse.Namespace, settings: Settings) -> int:
    _, store = _place(chosen, settings)
    faults = 0
    found = _chosen(chosen, store)
    for name, artifact in found:
        fault = str(artifact) if isinstance(artifact, ArtifactError) else None
        if isinstance(artifact, Artifact):
            fault = damage(artifact.folder, artifact.manifest, full=True)
        print(f"{name}: {fault or 'every byte matches the manifest'}")
        faults += fault is not None
    if not found:
        raise CannotBegin(f"no such artifact exists in {store.root}")
    return 1 if faults else 0


def _remove(chosen: argparse.Namespace, settings: Settings) -> int:
    if not (chosen.engine and chosen.precision):
        raise CannotBegin("--remove needs --engine and --precision")
    _, store = _place(chosen, settings)
    name = f"{chosen.engine}-{SYNONYMS.get(chosen.precision, chosen.precision)}"
    try:
        store.remove(name)
    except ArtifactError as error:
        raise CannotBegin(str(error)) from error
    except OSError as error:
        raise BuildError(f"{store.root / name} cannot be removed: {error.strerror}") from error
    print(f"removed {store.root / name}")
    return 0


def _place(chosen: argparse.Namespace, settings: Settings) -> tuple[Path, ArtifactStore]:
    if is_remote(chosen.out):
        raise CannotBegin(f"--out: {chosen.out} is invalid: --list, --verify and --remove need a directory")
    model_dir = fetch(chosen.model, settings)
    return model_dir, store_of(chosen.out, model_dir, settings, "")


def _chosen(chosen: argparse.Namespace, store: ArtifactStore) -> list[tuple[str, Artifact | ArtifactError]]:
    """Return the artifacts of the chosen engine and precision, or all, by name."""
    precision = SYNONYMS.get(chosen.precision, chosen.precision)
    return [
        (name, artifact)
        for name, artifact in store.all().items()
        if (not chosen.engine or name.startswith(f"{chosen.engine}-"))
        and (not precision or name.endswith(f"-{precision}"))
    ]


def _complain(text: str, code: int) -> int:
    print(f"triton-diffusers: {text}", file=sys.stderr)
    return code
