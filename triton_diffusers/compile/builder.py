"""The build itself, stage by stage. What a stage has finished is not done again after a crash."""

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
from triton_diffusers.compile.errors import AtWork, BuildError, CannotBegin, Refused
from triton_diffusers.compile.options import SPREAD_PSNR, BuildOptions
from triton_diffusers.compile.plan import Plan, check_space
from triton_diffusers.compile.progress import Progress
from triton_diffusers.compile.quality import compare
from triton_diffusers.compile.tasks import (
    Advance,
    CalibrateTask,
    CompileTask,
    Drawn,
    DrawTask,
    Task,
    Timed,
    TimeTask,
    run_task,
)
from triton_diffusers.compile.work import WorkFolder, write_whole
from triton_diffusers.engines.compilers import caches_of

_CALIBRATION_STEPS = 16  # of a picture, at most: every step's inputs are kept

# Runs a task in a process with a log and a lock's descriptor, and is told how far it is.
RunTask = Callable[[Task, Path, int, Advance], Drawn | Timed | None]


class _Reference(BaseModel):
    """What the eager engine has drawn, and what it was asked for; ``files`` are all that it has written."""

    steps: int
    asked_side: int
    drawn: Drawn
    files: tuple[ArtifactFile, ...]


def build(plan: Plan, options: BuildOptions, progress: Progress, run: RunTask = run_task) -> Artifact:
    """Build, verify and place, or take what another build has placed since the plan was made.

    Raises ``BuildError``; what was finished by then is gone on with the next time.
    """
    work = WorkFolder(plan.store.root, plan.name)
    before = plan.fitting()  # what --force is not content with
    try:
        _open(work, plan, options, progress)
    except OSError as error:
        where = error.filename or plan.store.root
        raise CannotBegin(f"{where} cannot be written ({error.strerror}); name another place with --out") from error
    try:
        there = plan.fitting()
        if there is not None and not (options.force and there == before):
            progress.note(f"{plan.name} was built by another build meanwhile")
            return there
        work.prepare(plan.made_of, anew=options.force)
        check_space(plan, work.bytes)
        artifact = _Build(plan, options, progress, run, work).build()
        shutil.rmtree(work.folder, ignore_errors=True)
        return artifact
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise BuildError(f"{plan.name} is not built: {where}{error.strerror or error}") from error
    except ArtifactError as error:
        raise BuildError(str(error)) from error
    finally:
        work.close()


def _open(work: WorkFolder, plan: Plan, options: BuildOptions, progress: Progress) -> None:
    try:
        work.open()
    except AtWork as error:
        if not options.wait:
            raise BuildError(f"{error}; --wait waits until it has ended") from None
        with progress.stage(f"waiting: {error}"):
            work.open(wait=True)


class _Build:
    def __init__(self, plan: Plan, options: BuildOptions, progress: Progress, run: RunTask, work: WorkFolder) -> None:
        self._plan, self._options, self._progress, self._run_task, self._work = plan, options, progress, run, work
        self._stages = ["calibration"] * bool(plan.calibrated) + [*plan.graphs, "eager", "compiled", "time", "place"]

    def build(self) -> Artifact:
        plan = self._plan
        self._check_model()  # another build may have been waited for
        finished = {graph: files for graph in plan.graphs if (files := self._work.graph(graph))}
        if finished:
            self._progress.note(f"going on with an earlier build: {', '.join(finished)} done already")
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
                    fingerprint=plan.here.fingerprint,
                    engine=plan.engine,
                    precision=plan.precision,
                    graphs=graphs,
                    versions=dict(plan.here.versions),
                    machine=plan.here.machine,
                    created=datetime.now(UTC).isoformat(timespec="seconds"),
                    figures=figures,
                ),
            )

    def _check_model(self) -> None:
        """Raises ``BuildError`` if the graphs, or some of them, may be of other weights than those that were there."""
        try:
            unchanged = fingerprint(self._plan.model_dir, self._plan.vae) == self._plan.here.fingerprint
        except (ArtifactError, LoadError):
            unchanged = False
        if not unchanged:
            self._work.discard()
            raise BuildError(
                f"{self._plan.name} is not placed: the weights in {self._plan.model_dir} have changed since the build "
                f"began; start it again"
            )

    def _calibrate(self) -> Path:
        folder = self._work.part("calibration")
        with self._stage("calibration", "drawing for calibration") as advance:
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

    def _draw_eagerly(self) -> Drawn:
        folder, record = self._work.pictures / "eager", self._work.pictures / "eager.json"
        asked = {"steps": self._options.steps, "asked_side": self._options.side}
        try:
            kept = _Reference.model_validate_json(record.read_bytes())
            if kept.model_dump(include={*asked}) == asked and kept.files == describe(folder):
                return kept.drawn
        except (OSError, ValidationError):
            pass
        with self._stage("eager", "drawing eagerly, in float32") as advance:
            drawn = self._draw(DrawTask(**self._drawing(self._empty("eager"))), "eager", advance)
            write_whole(record, _Reference(**asked, drawn=drawn, files=describe(folder)).model_dump_json())
        return drawn

    def _draw_compiled(self, graphs: Mapping[str, Sequence[ArtifactFile]]) -> Drawn:
        with self._stage("compiled", f"drawing by {self._plan.name}") as advance:
            task = DrawTask(**self._drawing(self._empty("compiled")), **self._compiled(graphs))
            return self._draw(task, "compiled", advance)

    def _time(self, graphs: Mapping[str, Sequence[ArtifactFile]], side: int) -> tuple[tuple[float, float], ...]:
        with self._stage("time", f"timing {self._plan.name} beside the eager engine") as advance:
            task = TimeTask(**self._model(), **self._compiled(graphs), folder=self._work.part("time"), side=side)
            timed = self._run(task, "time", advance)
            if not isinstance(timed, Timed):
                raise BuildError(f"nothing was timed (all that was said: {self._work.log('time')})")
            return timed.rounds

    def _compiled(self, graphs: Mapping[str, Sequence[ArtifactFile]]) -> dict[str, Any]:
        return {
            "engine": self._plan.engine,
            "precision": self._plan.precision,
            "graphs": {graph: self._work.artifact / graph for graph in graphs},
            # Under the name that the artifact will have: the server that has asked for it loads it next.
            "caches": caches_of(self._plan.cache_dir, self._plan.store.root / self._plan.name, graphs),
        }

    def _judge(self, eager: Drawn) -> Mapping[str, float]:
        """Return the PSNR of each probe. Raises ``Refused`` if the images came out too unlike the eager ones."""
        pictures = self._work.pictures
        psnr = compare(pictures / "eager", pictures / "compiled", eager.files)
        mean, worst = sum(psnr.values()) / len(psnr), min(psnr, key=lambda name: psnr[name])
        limit, lowest = self._plan.min_psnr, self._plan.min_psnr - SPREAD_PSNR[self._plan.precision]
        if mean < limit or psnr[worst] < lowest:
            raise Refused(
                f"{self._plan.name} is not placed: it does not draw what the eager engine draws; its pictures have a "
                f"PSNR of {mean:.1f} dB on average and {psnr[worst]:.1f} dB at the least ({worst!r}), the limits are "
                f"{limit:g} and {lowest:g} dB (--min-psnr); look at {pictures}"
            )
        return psnr

    def _model(self) -> dict[str, Any]:
        return {"model_dir": self._plan.model_dir, "cache_dir": self._plan.cache_dir}

    def _drawing(self, folder: Path) -> dict[str, Any]:
        return {**self._model(), "folder": folder, "steps": self._options.steps, "side": self._options.side}

    def _empty(self, name: str) -> Path:
        folder = self._work.pictures / name
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def _draw(self, task: DrawTask, name: str, advance: Advance) -> Drawn:
        drawn = self._run(task, name, advance)
        if not isinstance(drawn, Drawn):
            raise BuildError(f"nothing was drawn (all that was said: {self._work.log(name)})")
        return drawn

    def _run(self, task: Task, name: str, advance: Advance) -> Drawn | Timed | None:
        return self._run_task(task, self._work.log(name), self._work.lock, advance)

    @contextmanager
    def _stage(self, name: str, what: str) -> Iterator[Advance]:
        number = self._stages.index(name) + 1
        with self._progress.stage(f"[{number}/{len(self._stages)}] {what}") as advance:
            yield advance
