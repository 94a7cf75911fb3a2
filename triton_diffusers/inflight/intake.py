"""What a job waits for before it can begin: its images, and its ControlNets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from triton_diffusers.fetch import LinkFetcher, LinkQueue
from triton_diffusers.inflight.controlnets import ControlNets, Held
from triton_diffusers.inflight.job import Job
from triton_diffusers.pictures import Gatherer
from triton_diffusers.settings import Settings

# Jobs whose images are read at once.
_THREADS = 4


class Intake:
    """Fetches, reads and loads for jobs, in threads of its own, so that no step waits for a network or a file.

    Links are fetched in other threads than images are read in: whoever sends an image itself never waits for somebody's
    silent host. ``controlnets`` gives the ControlNets of the engine in use. ``gathered`` is called with a job that has
    its images and the ControlNets that it has taken, ``failed`` with a job that cannot have them, and why.
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
            patience=settings.link_wait_seconds,
        )
        self._controlnets, self._gathered, self._failed = controlnets, gathered, failed
        self._reading = ThreadPoolExecutor(_THREADS, thread_name_prefix="intake")
        # One: ControlNets are loaded one after the other, and wait for memory.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="controlnets")

    def begin(self, job: Job) -> None:
        """Get a job its images and ControlNets.

        Raises:
            Busy: too many links wait already.
            InvalidPicture: a link is malformed.
        """
        links = job.request.links
        if not links:
            self._reading.submit(self._read, job, {})
            return
        job.fetching = True
        self._links.fetch(links, lambda: job.state.ended).add_done_callback(lambda done: self._fetched(job, done))

    def stop(self) -> None:
        """Return once nothing is under way any longer; all jobs have ended by then."""
        self._links.stop()
        self._reading.shutdown(cancel_futures=True)
        self._controlnets().wake()
        self._loading.shutdown(cancel_futures=True)

    def _fetched(self, job: Job, bodies: Future[dict[str, bytes]]) -> None:
        job.fetching = False
        if job.state.ended:
            return
        if (error := bodies.exception()) is None:
            self._reading.submit(self._read, job, bodies.result())
        elif isinstance(error, Exception):
            self._failed(job, error)

    def _read(self, job: Job, bodies: dict[str, bytes]) -> None:
        if job.state.ended:
            return
        try:
            job.pictures = Gatherer(self._settings, bodies).gather(job.request)
            held = self._controlnets().take_loaded(job.controlnet_paths)
        except Exception as error:  # noqa: BLE001  # isolate the failure to this job
            self._failed(job, error)
            return
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
