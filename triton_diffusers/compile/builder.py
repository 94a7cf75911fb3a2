"""The build itself, stage by stage. After a crash, finished stages are not repeated."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import BaseModel, ValidationError

from triton_diffusers.artifacts import Artifact, ArtifactError, ArtifactFile, Figures, Manifest, fingerprint
from triton_diffusers.artifacts.damage import describe
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.compile.errors import BuildError, BuildInProgress, CannotBegin, QualityTooLow
from triton_diffusers.compile.options import PSNR_SPREAD, BuildOptions
from triton_diffusers.compile.plan import Plan, check_space
from triton_diffusers.compile.progress import Progress
from triton_diffusers.compile.report import compare
from triton_diffusers.compile.tasks import (
    Advance,
    CalibrateTask,
    CompileTask,
    DrawResult,
    DrawTask,
    Task,
    TimeResult,
    TimeTask,
    run_task,
)
from triton_diffusers.compile.work import WorkFolder
from triton_diffusers.engines.compilers import caches_of
from triton_diffusers.util.files import atomic_write

_CALIBRATION_STEPS = 16  # at most per image, since the inputs of every step are kept

# Runs a task in a process, with its log file, the descriptor of the lock and a progress callback.
RunTask = Callable[[Task, Path, int, Advance], DrawResult | TimeResult | None]


class _Reference(BaseModel):
    """The eager engine's result and the options it was made with; ``files`` are all files that it has written."""

    steps: int
    requested_side: int
    drawn: DrawResult
    files: tuple[ArtifactFile, ...]


def build(plan: Plan, options: BuildOptions, progress: Progress, run: RunTask = run_task) -> Artifact:
    """Build, verify and place the artifact, or return one that another build has placed since the plan was made.

    Raises: BuildError: the build failed; the next one resumes from its finished stages.
    """
    work = WorkFolder(plan.store.root, plan.name)
    before = plan.fitting()  # the artifact that --force replaces
    try:
        _open(work, plan, options, progress)
    except OSError as error:
        where = error.filename or plan.store.root
        raise CannotBegin(f"{where} cannot be written ({error.strerror}); choose another place with --out") from error
    try:
        existing = plan.fitting()
        if existing is not None and not (options.force and existing == before):
            progress.note(f"{plan.name} was built by another build meanwhile")
            return existing
        work.prepare(plan.made_of, force=options.force)
        check_space(plan, work.bytes)
        artifact = _Build(plan, options, progress, run, work).build()
        shutil.rmtree(work.folder, ignore_errors=True)
        return artifact
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise BuildError(f"{plan.name} was not built: {where}{error.strerror or error}") from error
    except ArtifactError as error:
        raise BuildError(str(error)) from error
    finally:
        work.close()


def _open(work: WorkFolder, plan: Plan, options: BuildOptions, progress: Progress) -> None:
    try:
        work.open()
    except BuildInProgress as error:
        if not options.wait:
            raise BuildError(f"{error}; --wait waits for its end") from None
        with progress.stage(f"waiting: {error}"):
            work.open(wait=True)


class _Build:
    def __init__(self, plan: Plan, options: BuildOptions, progress: Progress, run: RunTask, work: WorkFolder) -> None:
        self._plan, self._options, self._progress, self._run_task, self._work = plan, options, progress, run, work
        self._stages = ["calibration"] * bool(plan.calibrated) + [*plan.graphs, "eager", "compiled", "time", "place"]

    def build(self) -> Artifact:
        plan = self._plan
        self._check_model()  # it may have changed while this build waited for another one
        finished = {graph: files for graph in plan.graphs if (files := self._work.graph(graph))}
        if finished:
            self._progress.note(f"resuming an earlier build: {', '.join(finished)} already done")
        calibration = self._calibrate() if plan.calibrated and not finished.keys() >= set(plan.calibrated) else None
        graphs = {graph: finished.get(graph) or self._compile(graph, calibration) for graph in plan.graphs}
        eager = self._draw_eagerly()
        compiled = self._draw_compiled(graphs)
        psnr = self._judge(eager)
        rounds = self._time(graphs, compiled.side)
        figures = Figures(
            psnr={name: round(value, 2) for name, value in psnr.items()},
            side=compiled.side,
            seconds_per_step=median(after for _, after in rounds),
            eager_seconds_per_step=median(before for before, _ in rounds),
            rounds=rounds,
            peak_bytes=compiled.peak_bytes,
            eager_peak_bytes=eager.peak_bytes,
        )
        with self._stage("place", "checking and placing"):
            self._check_model()
            return plan.store.place(
                self._work.artifact,
                Manifest(
                    fingerprint=plan.environment.fingerprint,
                    engine=plan.engine,
                    precision=plan.precision,
                    graphs=graphs,
                    versions=dict(plan.environment.versions),
                    machine=plan.environment.machine,
                    created=datetime.now(UTC).isoformat(timespec="seconds"),
                    figures=figures,
                ),
            )

    def _check_model(self) -> None:
        """Raise ``BuildError`` if the weights have changed, so that some graphs may be of the old ones."""
        try:
            unchanged = fingerprint(self._plan.model_dir, self._plan.vae) == self._plan.environment.fingerprint
        except (ArtifactError, LoadError):
            unchanged = False
        if not unchanged:
            self._work.discard()
            raise BuildError(
                f"{self._plan.name} was not built: the weights in {self._plan.model_dir} have changed since the start "
                f"of the build; start it again"
            )

    def _calibrate(self) -> Path:
        folder = self._work.part("calibration")
        with self._stage("calibration", "generating calibration images") as advance:
            drawing = {**self._drawing(folder), "steps": min(self._options.steps, _CALIBRATION_STEPS)}
            self._run(CalibrateTask(**drawing, graphs=self._plan.calibrated), "calibration", advance)
        return folder

    def _compile(self, graph: str, calibration: Path | None) -> tuple[ArtifactFile, ...]:
        with self._stage(graph, f"compiling {graph}") as advance:
            task = CompileTask(
                **self._model(),
                engine=self._plan.engine,
                precision=self._plan.precision,
                graph=graph,
                folder=self._work.part(graph),
                calibration=calibration if graph in self._plan.calibrated else None,
            )
            self._run(task, graph, advance)
            return self._work.complete(graph)

    def _draw_eagerly(self) -> DrawResult:
        folder, record = self._work.images / "eager", self._work.images / "eager.json"
        requested = {"steps": self._options.steps, "requested_side": self._options.side}
        try:
            kept = _Reference.model_validate_json(record.read_bytes())
            if kept.model_dump(include={*requested}) == requested and kept.files == describe(folder):
                return kept.drawn
        except (OSError, ValidationError):
            pass
        with self._stage("eager", "generating eagerly, in float32") as advance:
            drawn = self._draw(DrawTask(**self._drawing(self._empty("eager"))), "eager", advance)
            atomic_write(record, _Reference(**requested, drawn=drawn, files=describe(folder)).model_dump_json())
        return drawn

    def _draw_compiled(self, graphs: Mapping[str, Sequence[ArtifactFile]]) -> DrawResult:
        with self._stage("compiled", f"generating with {self._plan.name}") as advance:
            task = DrawTask(**self._drawing(self._empty("compiled")), **self._compiled(graphs))
            return self._draw(task, "compiled", advance)

    def _time(self, graphs: Mapping[str, Sequence[ArtifactFile]], side: int) -> tuple[tuple[float, float], ...]:
        with self._stage("time", f"timing {self._plan.name} beside the eager engine") as advance:
            task = TimeTask(**self._model(), **self._compiled(graphs), folder=self._work.part("time"), side=side)
            timed = self._run(task, "time", advance)
            if not isinstance(timed, TimeResult):
                raise BuildError(f"timing failed without a result (full log: {self._work.log('time')})")
            return timed.rounds

    def _compiled(self, graphs: Mapping[str, Sequence[ArtifactFile]]) -> dict[str, Any]:
        return {
            "engine": self._plan.engine,
            "precision": self._plan.precision,
            "graphs": {graph: self._work.artifact / graph for graph in graphs},
            # Under the artifact's final name: the server that requested the build loads it next.
            "caches": caches_of(self._plan.cache_dir, self._plan.store.root / self._plan.name, graphs),
        }

    def _judge(self, eager: DrawResult) -> Mapping[str, float]:
        """Return the PSNR of each probe. Raises ``QualityTooLow`` if the images differ too much from the eager ones."""
        images = self._work.images
        psnr = compare(images / "eager", images / "compiled", eager.files)
        mean, worst = sum(psnr.values()) / len(psnr), min(psnr, key=lambda name: psnr[name])
        limit, lowest = self._plan.min_psnr, self._plan.min_psnr - PSNR_SPREAD[self._plan.precision]
        if mean < limit or psnr[worst] < lowest:
            raise QualityTooLow(
                f"{self._plan.name} was rejected: its images differ too much from the eager engine's: "
                f"their PSNR is {mean:.1f} dB on average and {psnr[worst]:.1f} dB at worst ({worst!r}), the limits are "
                f"{limit:g} and {lowest:g} dB (--min-psnr); compare the images in {images}"
            )
        return psnr

    def _model(self) -> dict[str, Any]:
        return {"model_dir": self._plan.model_dir, "cache_dir": self._plan.cache_dir}

    def _drawing(self, folder: Path) -> dict[str, Any]:
        return {**self._model(), "folder": folder, "steps": self._options.steps, "side": self._options.side}

    def _empty(self, name: str) -> Path:
        folder = self._work.images / name
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def _draw(self, task: DrawTask, name: str, advance: Advance) -> DrawResult:
        drawn = self._run(task, name, advance)
        if not isinstance(drawn, DrawResult):
            raise BuildError(f"image generation failed without a result (full log: {self._work.log(name)})")
        return drawn

    def _run(self, task: Task, name: str, advance: Advance) -> DrawResult | TimeResult | None:
        return self._run_task(task, self._work.log(name), self._work.lock, advance)

    @contextmanager
    def _stage(self, name: str, title: str) -> Iterator[Advance]:
        number = self._stages.index(name) + 1
        with self._progress.stage(f"[{number}/{len(self._stages)}] {title}") as advance:
            yield advance
