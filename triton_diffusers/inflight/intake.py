"""What a job waits for before it can begin: its images, and its ControlNets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from triton_diffusers.errors import TritonDiffusersError
from triton_diffusers.images.budget import MemoryBudget
from triton_diffusers.images.inputs import Footprint, Gatherer
from triton_diffusers.inflight.controlnets import ControlNets, Held
from triton_diffusers.inflight.job import Job
from triton_diffusers.links.fetcher import LinkFetcher
from triton_diffusers.links.queue import LinkQueue
from triton_diffusers.settings import Settings

# Jobs whose images are read at once, and how many of them may have large ones, which take a second or more each.
_THREADS = 4
_LARGE_THREADS = 2
# Part of the memory for decoding from which on an image is large.
_LARGE_PART = 1 / 32


class Intake:
    """Fetches, reads and loads for jobs, in threads of its own, so that no step waits for a network or a file.

    Links are fetched in other threads than images are read in: whoever sends an image itself never waits for somebody's
    silent host. Small images do not wait for large ones, and all share bounded memory.

    ``controlnets`` gives the ControlNets of the engine in use. ``gathered`` is called with a job that has its images
    and the ControlNets that it has taken, ``failed`` with a job that cannot have them, and why.
    """

    def __init__(
        self,
        settings: Settings,
        controlnets: Callable[[], ControlNets],
        gathered: Callable[[Job, Held], None],
        failed: Callable[[Job, Exception], None],
    ) -> None:
        self._settings = settings
        self._links = LinkQueue(
            LinkFetcher(settings),
            threads=settings.max_link_fetches,
            places=settings.max_link_queue,
            patience=settings.input_wait_seconds,
        )
        memory = int(settings.max_input_megabytes * 1e6)
        self._encoded, self._decoded = MemoryBudget(memory), MemoryBudget(memory)
        self._controlnets, self._gathered, self._failed = controlnets, gathered, failed
        self._reading = ThreadPoolExecutor(_THREADS, thread_name_prefix="intake")
        self._reading_large = ThreadPoolExecutor(_LARGE_THREADS, thread_name_prefix="large-intake")
        # One: ControlNets are loaded one after the other, and wait for memory.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="controlnets")

    def begin(self, job: Job) -> None:
        """Get a job its images and ControlNets.

        Raises:
            Busy: too many links wait already, or too many bytes of images.
            InvalidPicture: a link is malformed.
        """
        encoded = self._encoded.share()
        encoded.add(job.request.encoded_bytes)
        bodies: dict[str, bytes] = {}

        def take(url: str, body: bytes) -> None:
            encoded.add(len(body))
            bodies[url] = body

        try:
            if links := job.request.links:
                fetched = self._links.fetch(links, take, lambda: job.state.ended)
                job.fetching = True
                fetched.add_done_callback(lambda done: self._fetched(job, bodies, done))
            else:
                self._reading.submit(self._read, job, bodies)
        except TritonDiffusersError:
            encoded.close()
            raise
        job.memory.append(encoded)

    def stop(self) -> None:
        """Return once nothing is under way any longer; all jobs have ended by then."""
        self._links.stop()
        self._reading.shutdown(cancel_futures=True)
        self._reading_large.shutdown(cancel_futures=True)
        self._controlnets().wake()
        self._loading.shutdown(cancel_futures=True)

    def _fetched(self, job: Job, bodies: Mapping[str, bytes], done: Future[None]) -> None:
        job.fetching = False
        if job.state.ended:
            return
        if (error := done.exception()) is None:
            self._reading.submit(self._read, job, bodies)
        elif isinstance(error, Exception):
            self._failed(job, error)

    def _read(self, job: Job, bodies: Mapping[str, bytes]) -> None:
        if job.state.ended:
            return
        gatherer = Gatherer(self._settings, bodies)
        deadline = time.monotonic() + self._settings.input_wait_seconds
        try:
            footprint = gatherer.footprint(job.request)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            self._failed(job, error)
            return
        if footprint.decoding > self._decoded.total * _LARGE_PART:
            self._reading_large.submit(self._decode, job, gatherer, footprint, deadline)
        else:
            self._decode(job, gatherer, footprint, deadline)

    def _decode(self, job: Job, gatherer: Gatherer, footprint: Footprint, deadline: float) -> None:
        def has_ended() -> bool:
            return job.state.ended

        if has_ended():
            return
        share = self._decoded.share()
        try:
            share.wait_for(footprint.decoding + footprint.kept, deadline, has_ended)
            job.pictures = gatherer.gather(job.request)
            share.reduce_to(footprint.kept)
            held = self._controlnets().take_loaded(job.controlnet_paths)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            share.close()
            self._failed(job, error)
            return
        job.memory.append(share)
        if has_ended():  # perhaps too early to close this one
            share.close()
            job.pictures = None
        if held is None:
            self._loading.submit(self._load, job)
        else:
            self._gathered(job, held)

    def _load(self, job: Job) -> None:
        """May wait for other jobs to end."""
        if job.state.ended:
            return
        try:
            held = self._controlnets().take(job.controlnet_paths, lambda: job.state.ended)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            self._failed(job, error)
            return
        self._gathered(job, held)
