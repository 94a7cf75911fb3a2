"""The engine loop: a thread that admits jobs, advances them turn by turn, and finishes them."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from triton_diffusers.api.request import GenerationRequest, GenerationResult, ModelDefaults
from triton_diffusers.engines import Engine
from triton_diffusers.engines.protocol import check_successor
from triton_diffusers.errors import Busy, Cancelled, EngineFailure, TimedOut, TritonDiffusersError
from triton_diffusers.inflight.admission import Admission
from triton_diffusers.inflight.autoencoder import decode
from triton_diffusers.inflight.controlnets import ControlNets, Held
from triton_diffusers.inflight.finish import Outlet
from triton_diffusers.inflight.intake import Intake
from triton_diffusers.inflight.job import Job, JobState
from triton_diffusers.inflight.pace import Pace
from triton_diffusers.inflight.reporter import Reporter, show_previews
from triton_diffusers.inflight.safety import release, release_control_images
from triton_diffusers.inflight.step import advance, predict
from triton_diffusers.inflight.telemetry import Telemetry
from triton_diffusers.inflight.turn import Decode, Step, max_rows, next_turn
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.settings import Settings

logger = logging.getLogger(__name__)

_STOPPING = "the server is stopping; send the request again later"
_DIED = "the engine loop has failed, the server's log says why; send the request again later"


@dataclass(frozen=True, slots=True, eq=False)
class _InUse:
    """An engine, what makes jobs ready for it, and the ControlNets that it has loaded."""

    engine: Engine
    admission: Admission
    controlnets: ControlNets


class EngineLoop:
    """Runs jobs on one engine at a time.

    ``submit`` and ``wait`` may be called from any thread and do not block on the engine. The engine is made and touched
    by the loop's thread alone: OpenMP keeps a pool of threads for every thread that has ever computed, and with two
    pools on the same cores their barriers sleep instead of spin, which takes nearly twice the time for each UNet call
    of a small model. (One that takes over later, by ``swap``, is made elsewhere, so that no step waits for it.) Input
    pictures are fetched, and results compressed and stored, in threads of their own that leave torch alone, so that no
    step waits for a network or a compressor.
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
        # Guards the two collections, the jobs' states and the flag; notified whenever one of them changes.
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._stopping = False
        self._refusal = _STOPPING  # what is said once it takes no jobs
        # The engine that is to take over, until it has; and then the one before it, until that is dropped.
        self._successor: _InUse | None = None
        self._predecessor: _InUse | None = None
        self._intake = Intake(settings, lambda: self._in_use.controlnets, self._set_gathered, self._fail)
        self._outlet = Outlet(settings, self._succeed, self._fail, self._wait_for_store)
        self._pace = Pace()
        self._made: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread and wait for its engine; raises what making the engine raised."""
        self._thread.start()
        self._made.result()

    @property
    def defaults(self) -> ModelDefaults:
        """The model's own values of fields that a request leaves to it."""
        return self._in_use.admission.defaults

    def swap(self, engine: Engine) -> None:
        """Have another engine of the same checkpoint take over between two turns; returns when it has.

        Requests in flight go on with it from where they are. It must not be in use elsewhere, and should be ready for
        its first call: the loop waits for nothing else. To be called by one thread at a time.

        Raises ``UnfitEngine`` if it runs another checkpoint, and ``Busy`` if the loop ends before it could take over.
        """
        check_successor(self._in_use.engine, engine)
        successor = _InUse(engine, self._in_use.admission.on(engine), ControlNets.of(self._settings, engine))
        with self._changed:
            self._successor = successor
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._successor is None or not self.alive)
            taken_over, self._successor = self._successor is None, None
        # The old engine is dropped here and not by the loop: to give gigabytes back takes as long as a step.
        self._predecessor = None
        if not taken_over:
            raise Busy(self._refusal)

    def stop(self) -> None:
        """Cancel what is in flight and end the thread; returns when it has ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._intake.stop()
        self._outlet.stop()

    @property
    def alive(self) -> bool:
        """Whether the loop takes jobs."""
        return self._thread.is_alive() and not self._stopping

    def submit(self, request: GenerationRequest) -> Job:
        """Queue a request.

        Raises:
            Busy: too many requests or links wait, or the loop has stopped.
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
            # Links have a bound of their own: silent hosts must not have requests without links refused.
            if sum(not waiting.fetching for waiting in self._waiting) >= self._settings.max_queue:
                raise Busy(f"{self._settings.max_queue} requests wait already, the limit; send the request again later")
            if not job.gathered:
                self._intake.begin(job)  # under the lock, which it needs to hand anything over
            # Reported before the loop can see it, or its first report could come after its last.
            self._reporter.changed(job)
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Ask for a job's end; it ends at the next step."""
        job.cancel()
        with self._changed:
            self._changed.notify_all()

    def wait(self, jobs: Iterable[Job], timeout: float) -> None:
        """Return when any of the jobs has ended, at the latest after ``timeout`` seconds."""
        watched = tuple(jobs)
        with self._changed:
            self._changed.wait_for(lambda: any(job.state.ended for job in watched), timeout)

    def _set_gathered(self, job: Job, held: Held) -> None:
        with self._changed:
            if job.state.ended:
                held.give_back()
                return
            job.controlnets, job.gathered = held, True
            self._changed.notify_all()

    # The loop's thread: admit → advance → finish.

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            engine = self._make_engine()
            self._in_use = _InUse(engine, Admission(engine, self._settings), ControlNets.of(self._settings, engine))
            del engine  # or it would stay for ever, whatever takes over
        except BaseException as error:  # noqa: BLE001  # raised where the loop is started
            self._made.set_exception(error)
            return
        self._made.set_result(None)
        try:
            while self._wait_for_work():
                self._take_over()
                self._drop_cancelled()
                self._admit()
                self._advance()
        except Exception:
            logger.exception("the engine loop died; this is a bug")
            self._refusal = _DIED
        finally:
            with self._changed:
                self._stopping = True
                self._changed.notify_all()
            for job in self._jobs():
                if not job.decoded:  # what is decoded can still be stored
                    self._end(job, JobState.CANCELLED, Busy(self._refusal))

    def _wait_for_work(self) -> bool:
        """Sleep until there may be something to do; False if the loop is to stop."""
        with self._changed:
            if not (self._stopping or self._has_work()):
                # Neither a cancellation on the board nor a timeout wakes anybody.
                self._changed.wait(self._settings.poll_seconds if self._jobs() else None)
            return not self._stopping

    def _has_work(self) -> bool:
        # What is decoded is the outlet's: it ends without the loop, and then there is room for who waits.
        return (
            self._successor is not None
            or any(not job.decoded for job in self._running)
            or any(job.cancel_requested for job in self._jobs())
            or self._next_that_fits() is not None
        )

    def _next_that_fits(self) -> Job | None:
        """The job that waits longest and has its pictures, if the bound on images in flight has room for it."""
        with self._changed:
            most = self._settings.max_images_in_flight
            # Counted apart, so that a store that is away does not stop the engine at once.
            in_flight = sum(job.request.image_num for job in self._running if not job.decoded)
            decoded = sum(job.request.image_num for job in self._running if job.decoded)
            first = next((job for job in self._waiting if job.gathered and not job.cancel_requested), None)
            fits = first is not None and in_flight + first.request.image_num <= most and decoded < most
            return first if fits else None

    def _take_over(self) -> None:
        with self._changed:
            if self._successor is not None:
                self._predecessor, self._in_use, self._successor = self._in_use, self._successor, None
                self._changed.notify_all()

    def _drop_cancelled(self) -> None:
        on_board = self._reporter.cancellations()
        for job in self._jobs():
            if job.cancel_requested or job.number in on_board:
                self._end(job, JobState.CANCELLED, Cancelled("the job was cancelled"))
            elif job.timed_out:
                self._end(job, JobState.CANCELLED, TimedOut(job.request.timeout_seconds))

    def _admit(self) -> None:
        """Make jobs ready, in the order of their arrival, while the bound on images in flight and the pace allow."""
        while not self._stopping and (job := self._next_that_fits()) is not None:
            others = [other for other in self._running_jobs() if not other.decoded]
            if not self._pace.allows(len(others)):
                return
            job.started = time.time()
            began = time.perf_counter()
            try:
                self._in_use.admission.prepare(job)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's alone
                self._fail(job, error)
            seconds = time.perf_counter() - began
            self._pace.admitted(seconds)
            if job.state.ended:
                continue
            # A newcomer is owed no compute for the time before it came.
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
        self._pace.advanced(time.perf_counter() - began)

    def _step(self, turn: Step) -> None:
        began = time.perf_counter()
        work = [sample.work for _, sample in turn.samples]
        try:
            samples = [sample for _, sample in turn.samples]
            predictions = predict(self._in_use.engine, samples, max_rows(self._settings.max_batch))
        except Exception as error:  # noqa: BLE001  # find out whose fault it is
            self._step_each(turn, error)
            return
        for (job, sample), prediction in zip(turn.samples, predictions, strict=True):
            try:
                advance(sample, prediction)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's alone
                self._fail(job, error)
            job.optimized = self._in_use.engine.optimized
        seconds = time.perf_counter() - began
        for (job, _), share in zip(turn.samples, work, strict=True):
            job.cost_seconds += seconds * share / sum(work)
        self._reporter.advanced(turn.jobs, len(turn.samples), seconds)
        show_previews(self._in_use.engine, turn.jobs, self._reporter)

    def _step_each(self, turn: Step, error: Exception) -> None:
        """A call failed: if several jobs shared it, give each its own, so that only the culprit fails."""
        if len(turn.jobs) == 1:
            self._fail(turn.jobs[0], error)
            return
        logger.warning("a UNet call of %d jobs failed (%s); trying each alone", len(turn.jobs), error)
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
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's alone
            self._fail(job, error)
            return
        job.cost_seconds += time.perf_counter() - began
        self._reporter.changed(job)
        if job.decoded:
            self._outlet.begin(job)

    def _succeed(self, job: Job, result: GenerationResult) -> bool:
        return self._end(job, JobState.SUCCEEDED, result=result)

    def _wait_for_store(self, job: Job, message: str) -> None:
        job.notice = message
        self._reporter.changed(job)

    def _fail(self, job: Job, error: Exception) -> None:
        if not isinstance(error, TritonDiffusersError):
            logger.error("job %s failed", job.request.task_id, exc_info=error)
            # Its text is not for the caller: libraries name the server's files and insides.
            told = EngineFailure(f"task {job.request.task_id} failed; the server's log says why")
            told.__cause__ = error
            error = told
        self._end(job, JobState.FAILED, error)

    def _end(
        self, job: Job, state: JobState, error: Exception | None = None, result: GenerationResult | None = None
    ) -> bool:
        """Answer a job; False if it was before."""
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
            job.pictures = None
            for share in job.memory:
                share.close()
            if job.controlnets is not None:
                job.controlnets.give_back()
            elif job.request.controls:
                self._in_use.controlnets.wake()  # what waits for memory may be for this job
            # Reported before anyone is woken: who has the answer must not read that the job still runs.
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
