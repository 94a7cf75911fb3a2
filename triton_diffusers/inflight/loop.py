"""Engine loop: a thread that admits jobs, advances them turn by turn and finishes them."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from triton_diffusers.api.request import GenerationRequest, ModelDefaults
from triton_diffusers.engines import Engine
from triton_diffusers.engines.protocol import check_successor
from triton_diffusers.errors import Busy, Cancelled, TimedOut
from triton_diffusers.inflight.active_jobs import ActiveJobs
from triton_diffusers.inflight.admission import Admission, AdmissionBudget
from triton_diffusers.inflight.autoencoder import decode
from triton_diffusers.inflight.controlnet_cache import ControlNetCache
from triton_diffusers.inflight.finish import Finisher
from triton_diffusers.inflight.input_loader import InputLoader
from triton_diffusers.inflight.job import Job, Origin
from triton_diffusers.inflight.reporter import Reporter, show_previews
from triton_diffusers.inflight.safety import release, release_control_images
from triton_diffusers.inflight.step import advance, predict
from triton_diffusers.inflight.telemetry import Telemetry
from triton_diffusers.inflight.turn import Decode, Step, max_rows, next_turn
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.settings import Settings

logger = logging.getLogger(__name__)

_STOPPING_MESSAGE = "the server is stopping; send the request again later"
_DIED_MESSAGE = "the engine loop has failed, the server's log says why; send the request again later"


@dataclass(frozen=True, slots=True, eq=False)
class _EngineContext:
    """An engine with its admission and its loaded ControlNets."""

    engine: Engine
    admission: Admission
    controlnets: ControlNetCache

    @classmethod
    def first(cls, engine: Engine, settings: Settings) -> _EngineContext:
        """Return the context of a loop's first engine."""
        return cls(engine, Admission(engine, settings), ControlNetCache.for_engine(settings, engine))

    def successor(self, engine: Engine, settings: Settings) -> _EngineContext:
        """Return the context of an engine that takes over from this one."""
        return _EngineContext(engine, self.admission.for_engine(engine), ControlNetCache.for_engine(settings, engine))


@dataclass(slots=True, eq=False)
class _Swap:
    """Exchange of the engine between two threads: ``context`` is the new one, and the replaced one once it is done."""

    context: _EngineContext
    done: Future[bool] = field(default_factory=Future)


class EngineLoop:
    """Scheduler of jobs on one engine at a time.

    ``submit`` and ``wait`` may be called from any thread and never block on the engine. Only the loop's thread creates
    and uses the engine: OpenMP keeps a thread pool per calling thread, and two pools on the same cores nearly double
    the time of a call of a small model. (Engines passed to ``swap`` are created elsewhere, so that no step waits for
    them.) Loading inputs and storing results have threads of their own that do not use torch.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        settings: Settings,
        *,
        name: str,
        board: JobBoard | None = None,
        telemetry: Telemetry | None = None,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        """``name`` is the model of requests without an origin. ``on_death`` is called if the loop fails, a bug."""
        self._make_engine = make_engine
        self._settings = settings
        self._name = name
        self._reporter = Reporter(board, telemetry)
        self._on_death = on_death
        self._numbers = itertools.count(1)
        self._jobs = ActiveJobs(self._reporter, settings.max_images_in_flight)
        self._changed = self._jobs.changed  # guards the flag and the swap too
        self._stopping = False
        self._refusal = _STOPPING_MESSAGE  # error of jobs that come too late
        self._swap: _Swap | None = None
        self._input_loader = InputLoader(settings, self._jobs)
        self._finisher = Finisher(settings, self._jobs)
        self._budget = AdmissionBudget()
        self._made: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread and wait for its engine; re-raises errors of creating the engine."""
        self._thread.start()
        self._made.result()

    @property
    def defaults(self) -> ModelDefaults:
        """The model's own values of fields that a request leaves out."""
        return self._in_use.admission.defaults

    def swap(self, engine: Engine) -> None:
        """Replace the engine by another one of the same checkpoint between two turns; return when it is in use.

        Requests in flight continue with it. The engine must be unused elsewhere and ready for its first call, since the
        loop waits for nothing else. Only one thread at a time may call this.

        Raises:
            IncompatibleEngine: it runs another checkpoint.
            Busy: the loop ended before the swap.
        """
        check_successor(self._in_use.engine, engine)
        swap = _Swap(self._in_use.successor(engine, self._settings))
        with self._changed:
            if not self.alive:
                raise Busy(self._refusal)
            self._swap = swap
            self._changed.notify_all()
        # ``swap`` then holds the replaced engine, so this thread frees it: freeing gigabytes takes as long as a step.
        if not swap.done.result():
            raise Busy(self._refusal)

    def stop(self) -> None:
        """Cancel all jobs, and return when the thread has ended."""
        with self._changed:
            self._stopping = True
            self._cancel_swap()
            self._changed.notify_all()
        self._thread.join()
        self._input_loader.stop()
        self._finisher.stop()

    @property
    def alive(self) -> bool:
        """True if the loop accepts jobs."""
        return self._thread.is_alive() and not self._stopping

    def submit(self, request: GenerationRequest, origin: Origin | None = None) -> Job:
        """Queue a request.

        Raises:
            Busy: too many requests or links are pending, or the loop has stopped.
            InvalidImage: a link is malformed.
        """
        job = Job(
            number=next(self._numbers),
            origin=origin or Origin(model=self._name),
            request=request,
            gathered=not request.has_images,
            warnings=list(request.warnings),
        )
        with self._changed:
            if not self.alive:
                raise Busy(self._refusal)
            # Links have their own limit: a slow host must not block requests without links.
            if self._jobs.queued() >= self._settings.max_queue:
                raise Busy(f"{self._settings.max_queue} requests wait already, the limit; send the request again later")
            if not job.gathered:
                job.origin.on_start()
                self._input_loader.begin(job)  # under the lock, so that its events come after the job is queued
            self._jobs.add(job)
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job at its next step."""
        job.cancel()
        with self._changed:
            self._changed.notify_all()

    def wait(self, jobs: Iterable[Job], timeout: float) -> None:
        """Return when any of the jobs has ended, or after ``timeout`` seconds."""
        self._jobs.wait(jobs, timeout)

    # The loop's thread: admit → advance → finish.

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            engine = self._make_engine()
            self._use(_EngineContext.first(engine, self._settings))
            del engine  # this frame lives as long as the loop, and must not keep a replaced engine alive
        except BaseException as error:  # noqa: BLE001  # re-raised by ``start``
            self._made.set_exception(error)
            return
        self._made.set_result(None)
        try:
            while self._wait_for_work():
                self._swap_engine()
                self._drop_cancelled()
                self._admit()
                self._advance()
        except Exception:
            logger.exception("the engine loop died; this is a bug")
            self._refusal = _DIED_MESSAGE
            self._on_death()
        finally:
            with self._changed:
                self._stopping = True
                self._cancel_swap()
                self._changed.notify_all()
            for job in self._jobs.all():
                if not job.decoded:  # decoded jobs can still be stored
                    self._jobs.cancel(job, Busy(self._refusal))

    def _use(self, context: _EngineContext) -> None:
        self._in_use = context
        self._input_loader.use(context.controlnets)

    def _wait_for_work(self) -> bool:
        """Wait for work; return False when the loop must stop."""
        with self._changed:
            if not (self._stopping or self._has_work()):
                # Poll, since cancellations on the board and timeouts do not notify.
                self._changed.wait(self._settings.poll_seconds if self._jobs.all() else None)
            return not self._stopping

    def _has_work(self) -> bool:
        return (
            self._swap is not None
            or bool(self._jobs.undecoded())
            or any(job.cancel_requested for job in self._jobs.all())
            or self._jobs.next_that_fits() is not None
        )

    def _swap_engine(self) -> None:
        with self._changed:
            if self._swap is not None:
                replaced = self._in_use
                self._use(self._swap.context)
                self._swap.context = replaced
                del replaced  # like the swap itself, this frame would keep it alive
                done, self._swap = self._swap.done, None
                done.set_result(True)

    def _cancel_swap(self) -> None:
        with self._changed:
            if self._swap is not None:
                done, self._swap = self._swap.done, None
                done.set_result(False)

    def _drop_cancelled(self) -> None:
        on_board = self._reporter.cancellations()
        for job in self._jobs.all():
            if job.cancel_requested or job.origin.job_id in on_board:
                self._jobs.cancel(job, Cancelled("the job was cancelled"))
            elif job.timed_out:
                self._jobs.cancel(job, TimedOut(job.request.timeout_seconds))

    def _admit(self) -> None:
        """Admit jobs in the order of arrival while the limit of images in flight and the time budget allow."""
        while not self._stopping and (job := self._jobs.next_that_fits()) is not None:
            others = self._jobs.undecoded()
            if not self._budget.allows(len(others)):
                return
            job.origin.on_start()
            job.started = time.time()
            began = time.perf_counter()
            try:
                self._in_use.admission.prepare(job)
            except Exception as error:  # noqa: BLE001  # isolate the failure to this job
                self._jobs.fail(job, error)
            seconds = time.perf_counter() - began
            self._budget.admitted(seconds)
            if job.state.ended:
                continue
            # Start at the least charged job's cost: no credit for the time before arrival.
            job.cost_seconds = min((other.cost_seconds for other in others), default=0.0) + seconds
            self._jobs.admitted(job)

    def _advance(self) -> None:
        began = time.perf_counter()
        turn = next_turn(self._jobs.undecoded(), self._settings.max_batch, self._in_use.engine.computes_apart)
        if isinstance(turn, Decode):
            self._decode(turn)
        elif isinstance(turn, Step):
            self._step(turn)
        self._budget.advanced(time.perf_counter() - began)

    def _step(self, turn: Step) -> None:
        began = time.perf_counter()
        work = [sample.work for _, sample in turn.samples]
        try:
            samples = [sample for _, sample in turn.samples]
            predictions = predict(self._in_use.engine, samples, max_rows(self._settings.max_batch))
        except Exception as error:  # noqa: BLE001  # retried per job to find the culprit
            self._step_each(turn, error)
            return
        for (job, sample), prediction in zip(turn.samples, predictions, strict=True):
            try:
                advance(self._in_use.engine.family, sample, prediction)
            except Exception as error:  # noqa: BLE001  # isolate the failure to this job
                self._jobs.fail(job, error)
            job.optimized = self._in_use.engine.optimized
        seconds = time.perf_counter() - began
        for (job, _), share in zip(turn.samples, work, strict=True):
            job.cost_seconds += seconds * share / sum(work)
        self._reporter.advanced([job for job, _ in turn.samples], seconds)
        show_previews(self._in_use.engine, turn.jobs, self._reporter)

    def _step_each(self, turn: Step, error: Exception) -> None:
        """Retry a failed call separately for each of its jobs, so that only the culprit fails."""
        if len(turn.jobs) == 1:
            self._jobs.fail(turn.jobs[0], error)
            return
        logger.warning("a denoiser call of %d jobs failed (%s); retrying each alone", len(turn.jobs), error)
        for job in turn.jobs:
            self._step(Step(tuple((owner, sample) for owner, sample in turn.samples if owner is job)))

    def _decode(self, turn: Decode) -> None:
        job, sample = turn.job, turn.sample
        began = time.perf_counter()
        try:
            unchanged = job.request.unchanged
            decoded = None if unchanged else decode(self._in_use.engine, sample.latents, job.warnings)
            release(self._in_use.engine, job, sample, decoded)
            if job.decoded:
                release_control_images(self._in_use.engine, job)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            self._jobs.fail(job, error)
            return
        job.cost_seconds += time.perf_counter() - began
        self._reporter.changed(job)
        if job.decoded:
            self._finisher.begin(job)
