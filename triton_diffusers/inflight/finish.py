"""A decoded job's result: its images encoded and stored."""

from __future__ import annotations

import threading
from collections.abc import Callable

from triton_diffusers.images import encode
from triton_diffusers.inflight.job import Job, Sample
from triton_diffusers.metadata import metadata_of
from triton_diffusers.request import GenerationResult, OutputFormat
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
