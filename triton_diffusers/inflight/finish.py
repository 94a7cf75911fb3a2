"""A decoded job's result: its images encoded and stored."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from triton_diffusers.api.request import GenerationResult, OutputFormat
from triton_diffusers.images.encode import encode
from triton_diffusers.images.metadata import metadata_of
from triton_diffusers.inflight.job import Job, Sample
from triton_diffusers.settings import Settings
from triton_diffusers.storage import Patience, ResultKeeper, UnstoredFolder, open_store

_ENCODERS = 4  # jobs whose images are compressed at once


class Finisher:
    """Makes results, in any thread: it touches no torch."""

    def __init__(self, settings: Settings) -> None:
        self._model = settings.model_name
        store = open_store(settings)
        if store is not None:
            store.try_out()  # now, rather than with the first image
        self._keeper = ResultKeeper(store, UnstoredFolder.of(settings))
        self._encoding = threading.BoundedSemaphore(_ENCODERS)

    def finish(self, job: Job, accept: Callable[[GenerationResult], bool], patience: Patience) -> None:
        """Make the result of a job whose images are all decoded, store it and hand it over.

        ``accept`` says whether it came in time; what came too late is removed again. ``patience`` is for a store that
        is away. Raises ``StorageFailure``; nothing is stored then.
        """
        request = job.request
        with self._encoding:
            images = tuple(self._encode(job, sample) for sample in job.samples)
        stored = self._keeper.keep(request, images, patience)
        result = GenerationResult(
            request=request,
            images=images,
            is_nsfw=tuple(sample.flagged for sample in job.samples),
            image_urls=tuple(place.image_url for place in stored),
            oss_urls=tuple(place.oss_url for place in stored),
            control_images=self._control_images(job),
            optimized=job.optimized,
            warnings=tuple(job.warnings),
            queue_seconds=job.queue_seconds,
            run_seconds=job.run_seconds,
        )
        if not accept(result):
            self._keeper.discard(stored)

    def _control_images(self, job: Job) -> tuple[bytes, ...]:
        if not job.request.return_control_image:
            return ()
        return tuple(encode(pixels, OutputFormat.PNG, None) for pixels in job.control_pictures)

    def _encode(self, job: Job, sample: Sample) -> bytes:
        request = job.request
        if sample.pixels is None:
            raise ValueError("an image that is not decoded has no result")
        metadata = metadata_of(request, sample.index, self._model, job.drawn_size) if request.embed_metadata else None
        return encode(sample.pixels, request.output_format, metadata)


class Outlet:
    """Finishes jobs in threads of its own that leave torch alone, so that no step waits for a compressor or a network.

    Each job has its own thread: one that waits for its store holds nobody up. ``finished`` is called with a job and
    its result, and says whether that came in time; ``failed`` with one whose result cannot be had, and why; ``waiting``
    with one that waits, and for what. Raises what ``open_store`` raises.
    """

    def __init__(
        self,
        settings: Settings,
        finished: Callable[[Job, GenerationResult], bool],
        failed: Callable[[Job, Exception], None],
        waiting: Callable[[Job, str], None],
    ) -> None:
        self._finisher = Finisher(settings)
        self._finished, self._failed, self._waiting = finished, failed, waiting
        self._store_seconds = settings.store_seconds
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(2 * settings.max_images_in_flight, thread_name_prefix="outlet")

    def begin(self, job: Job) -> None:
        """Finish a job whose images are all decoded."""
        self._threads.submit(self._finish, job)

    def stop(self) -> None:
        """Wait for no store any more; return when nothing is under way."""
        self._stopping.set()
        self._threads.shutdown()

    def _finish(self, job: Job) -> None:
        if job.state.ended:  # cancelled while others were finished
            return
        patience = Patience(
            seconds=self._store_seconds,
            is_wanted=lambda: not job.state.ended,
            is_stopping=self._stopping.is_set,
            report=lambda message: self._waiting(job, message),
        )
        try:
            self._finisher.finish(job, lambda result: self._finished(job, result), patience)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's alone
            self._failed(job, error)
