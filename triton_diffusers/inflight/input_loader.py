"""Loading of a job's images and ControlNets before admission."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from triton_diffusers.errors import TritonDiffusersError
from triton_diffusers.images.budget import MemoryBudget
from triton_diffusers.images.inputs import Footprint, ImageLoader
from triton_diffusers.inflight.active_jobs import ActiveJobs
from triton_diffusers.inflight.controlnet_cache import ControlNetCache
from triton_diffusers.inflight.job import Job
from triton_diffusers.links.fetcher import LinkFetcher
from triton_diffusers.links.queue import LinkQueue
from triton_diffusers.settings import Settings

# Large images take a second or more each, so they have threads of their own.
_MAX_READING_JOBS = 4
_MAX_LARGE_READING_JOBS = 2
# Minimum share of the decoding memory of a large image.
_MIN_LARGE_SHARE = 1 / 32


class InputLoader:
    """Thread pools that fetch, read and load inputs, so that no step waits for the network or a file.

    Links are fetched and images read in separate threads, so that a slow host delays only requests with links. Small
    images do not wait for large ones. All share bounded memory.
    """

    def __init__(self, settings: Settings, jobs: ActiveJobs) -> None:
        self._settings = settings
        self._jobs = jobs
        self._links = LinkQueue(
            LinkFetcher(settings),
            threads=settings.max_link_fetches,
            places=settings.max_link_queue,
            patience=settings.input_wait_seconds,
        )
        memory = int(settings.max_input_megabytes * 1e6)
        self._encoded, self._decoded = MemoryBudget(memory), MemoryBudget(memory)
        self._controlnets: ControlNetCache  # set by ``use`` before the first job
        self._reading = ThreadPoolExecutor(_MAX_READING_JOBS, thread_name_prefix="input-loader")
        self._reading_large = ThreadPoolExecutor(_MAX_LARGE_READING_JOBS, thread_name_prefix="large-input-loader")
        # One thread: ControlNets are loaded one by one, and may wait for memory.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="controlnets")

    def use(self, controlnets: ControlNetCache) -> None:
        """Load ControlNets into this cache from now on, that of the engine in use."""
        self._controlnets = controlnets

    def begin(self, job: Job) -> None:
        """Start loading a job's images and ControlNets.

        Raises:
            Busy: too many links or bytes of images are pending.
            InvalidImage: a link is malformed.
        """
        encoded = self._encoded.share()
        encoded.add(job.request.encoded_bytes)
        bodies: dict[str, bytes] = {}

        def receive(url: str, body: bytes) -> None:
            encoded.add(len(body))
            bodies[url] = body

        try:
            if links := job.request.links:
                fetched = self._links.fetch(links, receive, lambda: job.state.ended)
                job.fetching = True
                fetched.add_done_callback(lambda done: self._fetched(job, bodies, done))
            else:
                self._reading.submit(self._read, job, bodies)
        except TritonDiffusersError:
            encoded.close()
            raise
        job.memory.append(encoded)

    def stop(self) -> None:
        """Wait until all threads are idle; all jobs must have ended."""
        self._links.stop()
        self._reading.shutdown(cancel_futures=True)
        self._reading_large.shutdown(cancel_futures=True)
        self._loading.shutdown(cancel_futures=True)

    def _fetched(self, job: Job, bodies: Mapping[str, bytes], done: Future[None]) -> None:
        job.fetching = False
        if job.state.ended:
            return
        if (error := done.exception()) is None:
            self._reading.submit(self._read, job, bodies)
        elif isinstance(error, Exception):
            self._jobs.fail(job, error)

    def _read(self, job: Job, bodies: Mapping[str, bytes]) -> None:
        if job.state.ended:
            return
        gatherer = ImageLoader(self._settings, bodies)
        deadline = time.monotonic() + self._settings.input_wait_seconds
        try:
            footprint = gatherer.footprint(job.request)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            self._jobs.fail(job, error)
            return
        if footprint.decoding > self._decoded.total * _MIN_LARGE_SHARE:
            self._reading_large.submit(self._decode, job, gatherer, footprint, deadline)
        else:
            self._decode(job, gatherer, footprint, deadline)

    def _decode(self, job: Job, gatherer: ImageLoader, footprint: Footprint, deadline: float) -> None:
        def has_ended() -> bool:
            return job.state.ended

        if has_ended():
            return
        share = self._decoded.share()
        try:
            share.wait_for(footprint.decoding + footprint.kept, deadline, has_ended)
            job.sources = gatherer.load(job.request)
            share.reduce_to(footprint.kept)
            lease = self._controlnets.acquire_loaded(job.controlnet_paths)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            share.close()
            self._jobs.fail(job, error)
            return
        job.memory.append(share)
        if has_ended():  # it may have ended before the share was registered
            share.close()
            job.sources = None
        if lease is None:
            self._loading.submit(self._load, job)
        else:
            self._jobs.gathered(job, lease)

    def _load(self, job: Job) -> None:
        """Acquire ControlNets, waiting for other jobs to release theirs if needed."""
        if job.state.ended:
            return
        controlnets = self._controlnets
        job.interrupt = controlnets.wake
        try:
            lease = controlnets.acquire(job.controlnet_paths, lambda: job.state.ended)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            self._jobs.fail(job, error)
            return
        finally:
            job.interrupt = None  # it would keep a replaced engine alive
        self._jobs.gathered(job, lease)
