"""Engine loop: a thread that admits jobs, advances them turn by turn and finishes them."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from triton_diffusers.api.request import GenerationRequest, GenerationResult, ModelDefaults
from triton_diffusers.engines import Engine
from triton_diffusers.engines.protocol import check_successor
from triton_diffusers.errors import Busy, Cancelled, EngineFailure, TimedOut, TritonDiffusersError
from triton_diffusers.inflight.admission import Admission, AdmissionBudget
from triton_diffusers.inflight.autoencoder import decode
from triton_diffusers.inflight.controlnet_cache import ControlNetCache, ControlNetLease
from triton_diffusers.inflight.finish import Finisher
from triton_diffusers.inflight.input_loader import InputLoader
from triton_diffusers.inflight.job import Job, JobState
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
    the time of a UNet call of a small model. (Engines passed to ``swap`` are created elsewhere, so that no step waits
    for them.) Loading inputs and storing results have threads of their own that do not use torch.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        settings: Settings,
        *,
        name: str,
        board: JobBoard | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._make_engine = make_engine
        self._settings = settings
        self._name = name
        self._reporter = Reporter(board, telemetry)
        self._numbers = itertools.count(1)
        # Guards the two collections, the jobs' states and the flag; notified on every change.
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._stopping = False
        self._refusal = _STOPPING_MESSAGE  # error of jobs that come too late
        self._swap: _Swap | None = None
        self._input_loader = InputLoader(settings, lambda: self._in_use.controlnets, self._set_gathered, self._fail)
        self._finisher = Finisher(settings, self._succeed, self._fail, self._wait_for_store)
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

    def submit(self, request: GenerationRequest) -> Job:
        """Queue a request.

        Raises:
            Busy: too many requests or links are pending, or the loop has stopped.
            InvalidPicture: a link is malformed.
        """
        job = Job(
            number=next(self._numbers),
            model=self._name,
            request=request,
            gathered=not request.has_pictures,
            warnings=list(request.warnings),
        )
        with self._changed:
            if not self.alive:
                raise Busy(self._refusal)
            # Links have their own limit: a slow host must not block requests without links.
            if sum(not waiting.fetching for waiting in self._waiting) >= self._settings.max_queue:
                raise Busy(f"{self._settings.max_queue} requests wait already, the limit; send the request again later")
            if not job.gathered:
                self._input_loader.begin(job)  # under the lock, so that its events come after the job is queued
            # Reported before the loop sees it; otherwise its first report could follow its last.
            self._reporter.changed(job)
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job at its next step."""
        job.cancel()
        with self._changed:
            self._changed.notify_all()

    def wait(self, jobs: Iterable[Job], timeout: float) -> None:
        """Return when any of the jobs has ended, or after ``timeout`` seconds."""
        watched = tuple(jobs)
        with self._changed:
            self._changed.wait_for(lambda: any(job.state.ended for job in watched), timeout)

    def _set_gathered(self, job: Job, lease: ControlNetLease) -> None:
        with self._changed:
            if job.state.ended:
                lease.release()
                return
            job.controlnets, job.gathered = lease, True
            self._changed.notify_all()

    # The loop's thread: admit → advance → finish.

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            engine = self._make_engine()
            self._in_use = _EngineContext.first(engine, self._settings)
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
        finally:
            with self._changed:
                self._stopping = True
                self._cancel_swap()
                self._changed.notify_all()
            for job in self._jobs():
                if not job.decoded:  # decoded jobs can still be stored
                    self._end(job, JobState.CANCELLED, Busy(self._refusal))

    def _wait_for_work(self) -> bool:
        """Wait for work; return False when the loop must stop."""
        with self._changed:
            if not (self._stopping or self._has_work()):
                # Poll, since cancellations on the board and timeouts do not notify.
                self._changed.wait(self._settings.poll_seconds if self._jobs() else None)
            return not self._stopping

    def _has_work(self) -> bool:
        # Decoded jobs belong to the finisher; they free their slot without the loop's help.
        return (
            self._swap is not None
            or any(not job.decoded for job in self._running)
            or any(job.cancel_requested for job in self._jobs())
            or self._next_that_fits() is not None
        )

    def _next_that_fits(self) -> Job | None:
        """Return the oldest waiting job with complete inputs if the limit of images in flight allows it."""
        with self._changed:
            limit = self._settings.max_images_in_flight
            # Counted separately, so that an unavailable store does not stop the engine at once.
            in_flight = sum(job.request.image_num for job in self._running if not job.decoded)
            decoded = sum(job.request.image_num for job in self._running if job.decoded)
            first = next((job for job in self._waiting if job.gathered and not job.cancel_requested), None)
            fits = first is not None and in_flight + first.request.image_num <= limit and decoded < limit
            return first if fits else None

    def _swap_engine(self) -> None:
        with self._changed:
            if self._swap is not None:
                self._swap.context, self._in_use = self._in_use, self._swap.context
                done, self._swap = self._swap.done, None  # not the swap itself, which this frame would keep alive
                done.set_result(True)

    def _cancel_swap(self) -> None:
        with self._changed:
            if self._swap is not None:
                done, self._swap = self._swap.done, None
                done.set_result(False)

    def _drop_cancelled(self) -> None:
        on_board = self._reporter.cancellations()
        for job in self._jobs():
            if job.cancel_requested or job.number in on_board:
                self._end(job, JobState.CANCELLED, Cancelled("the job was cancelled"))
            elif job.timed_out:
                self._end(job, JobState.CANCELLED, TimedOut(job.request.timeout_seconds))

    def _admit(self) -> None:
        """Admit jobs in the order of arrival while the limit of images in flight and the time budget allow."""
        while not self._stopping and (job := self._next_that_fits()) is not None:
            others = [other for other in self._running_jobs() if not other.decoded]
            if not self._budget.allows(len(others)):
                return
            job.started = time.time()
            began = time.perf_counter()
            try:
                self._in_use.admission.prepare(job)
            except Exception as error:  # noqa: BLE001  # isolate the failure to this job
                self._fail(job, error)
            seconds = time.perf_counter() - began
            self._budget.admitted(seconds)
            if job.state.ended:
                continue
            # Start at the least charged job's cost: no credit for the time before arrival.
            job.cost_seconds = min((other.cost_seconds for other in others), default=0.0) + seconds
            with self._changed:
                self._waiting.remove(job)
                self._running.append(job)
                job.state = JobState.RUNNING
            self._reporter.changed(job)
            self._report_in_flight()

    def _advance(self) -> None:
        began = time.perf_counter()
        turn = next_turn(self._running_jobs(), self._settings.max_batch, self._in_use.engine.computes_apart)
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
                advance(sample, prediction)
            except Exception as error:  # noqa: BLE001  # isolate the failure to this job
                self._fail(job, error)
            job.optimized = self._in_use.engine.optimized
        seconds = time.perf_counter() - began
        for (job, _), share in zip(turn.samples, work, strict=True):
            job.cost_seconds += seconds * share / sum(work)
        self._reporter.advanced(turn.jobs, len(turn.samples), seconds)
        show_previews(self._in_use.engine, turn.jobs, self._reporter)

    def _step_each(self, turn: Step, error: Exception) -> None:
        """Retry a failed call separately for each of its jobs, so that only the culprit fails."""
        if len(turn.jobs) == 1:
            self._fail(turn.jobs[0], error)
            return
        logger.warning("a UNet call of %d jobs failed (%s); retrying each alone", len(turn.jobs), error)
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
            self._fail(job, error)
            return
        job.cost_seconds += time.perf_counter() - began
        self._reporter.changed(job)
        if job.decoded:
            self._finisher.begin(job)

    def _succeed(self, job: Job, result: GenerationResult) -> bool:
        return self._end(job, JobState.SUCCEEDED, result=result)

    def _wait_for_store(self, job: Job, message: str) -> None:
        job.notice = message
        self._reporter.changed(job)

    def _fail(self, job: Job, error: Exception) -> None:
        if not isinstance(error, TritonDiffusersError):
            logger.error("job %s failed", job.request.task_id, exc_info=error)
            # Third-party messages may disclose server paths and internals.
            failure = EngineFailure(f"task {job.request.task_id} failed; the server's log says why")
            failure.__cause__ = error
            error = failure
        self._end(job, JobState.FAILED, error)

    def _end(
        self, job: Job, state: JobState, error: Exception | None = None, result: GenerationResult | None = None
    ) -> bool:
        """End a job; return False if it has already ended."""
        with self._changed:
            if job.state.ended:
                return False
            job.error, job.result = error, result
            job.ended = time.time()
            job.state = state
            if job in self._waiting:
                self._waiting.remove(job)
            if job in self._running:
                self._running.remove(job)
            job.sources = None
            for share in job.memory:
                share.close()
            if job.controlnets is not None:
                job.controlnets.release()
            elif job.request.controls:
                self._in_use.controlnets.wake()  # this job's load may be waiting for memory
            # Reported before waking anyone: after the reply, the board must not show a running job.
            self._reporter.ended(job)
            self._changed.notify_all()
        self._report_in_flight()
        return True

    def _running_jobs(self) -> list[Job]:
        with self._changed:
            return list(self._running)

    def _jobs(self) -> list[Job]:
        with self._changed:
            return [*self._waiting, *self._running]

    def _report_in_flight(self) -> None:
        with self._changed:
            images = sum(job.request.image_num for job in self._running if not job.decoded)
            queued = len(self._waiting)
        self._reporter.in_flight(images, queued)
