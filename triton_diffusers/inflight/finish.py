"""Encoding and storage of a decoded job's images."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from triton_diffusers.api.request import GenerationResult, OutputFormat
from triton_diffusers.images.encode import encode
from triton_diffusers.images.metadata import metadata_of
from triton_diffusers.inflight.active_jobs import ActiveJobs
from triton_diffusers.inflight.job import Job, Sample
from triton_diffusers.settings import Settings
from triton_diffusers.storage import Patience, ResultKeeper, StoredResult, UnstoredFolder, open_store

_MAX_ENCODING_JOBS = 4


class ResultBuilder:
    """Encoder and storer of results; thread-safe and free of torch."""

    def __init__(self, settings: Settings) -> None:
        self._model = settings.model_name
        store = open_store(settings)
        if store is not None:
            store.try_out()  # fail at the start instead of with the first image
        self._keeper = ResultKeeper(store, UnstoredFolder.of(settings))
        self._encoding = threading.BoundedSemaphore(_MAX_ENCODING_JOBS)

    def build(self, job: Job, patience: Patience) -> tuple[GenerationResult, Sequence[StoredResult]]:
        """Encode and store a decoded job's images; return the result and its places in the store.

        ``patience`` limits retries of an unavailable store.

        Raises:
            StorageFailure: nothing was stored.
        """
        request = job.request
        with self._encoding:
            images = tuple(self._encode(job, sample) for sample in job.samples)
        stored = self._keeper.keep(request, images, patience) if request.store_images else ()
        result = GenerationResult(
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
        return result, stored

    def discard(self, stored: Sequence[StoredResult]) -> None:
        """Delete stored images that nobody wants any more."""
        self._keeper.discard(stored)

    def _control_images(self, job: Job) -> tuple[bytes, ...]:
        if not job.request.return_control_image:
            return ()
        return tuple(encode(pixels, OutputFormat.PNG, None) for pixels in job.control_images)

    def _encode(self, job: Job, sample: Sample) -> bytes:
        request = job.request
        if sample.pixels is None:
            raise ValueError("an image that is not decoded has no result")
        metadata = metadata_of(request, sample.index, self._model, job.drawn_size) if request.embed_metadata else None
        return encode(sample.pixels, request.output_format, metadata, request.output_quality)


class Finisher:
    """Thread pool that finishes jobs without torch, so that no step waits for compression or the network.

    Each job has its own thread, so one that waits for its store delays no other.
    """

    def __init__(self, settings: Settings, jobs: ActiveJobs) -> None:
        self._jobs = jobs
        self._builder = ResultBuilder(settings)
        self._store_seconds = settings.store_seconds
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(2 * settings.max_images_in_flight, thread_name_prefix="finisher")

    def begin(self, job: Job) -> None:
        """Start finishing a job whose images are all decoded."""
        self._threads.submit(self._finish, job)

    def stop(self) -> None:
        """Stop waiting for stores, and return when all threads are idle."""
        self._stopping.set()
        self._threads.shutdown()

    def _finish(self, job: Job) -> None:
        if job.state.ended:  # cancelled while queued
            return
        patience = Patience(
            seconds=self._store_seconds,
            is_wanted=lambda: not job.state.ended,
            is_stopping=self._stopping.is_set,
            report=lambda message: self._jobs.waits_for_store(job, message),
        )
        try:
            result, stored = self._builder.build(job, patience)
            if not self._jobs.succeed(job, result):  # cancelled while it was stored
                self._builder.discard(stored)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            self._jobs.fail(job, error)
