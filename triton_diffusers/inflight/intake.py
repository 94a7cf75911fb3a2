"""What a job waits for before it can begin: its pictures, and its ControlNets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from triton_diffusers.errors import Cancelled
from triton_diffusers.fetch import LinkFetcher
from triton_diffusers.inflight.controlnets import ControlNets, Held
from triton_diffusers.inflight.job import Job
from triton_diffusers.pictures import Gatherer
from triton_diffusers.settings import Settings

# Jobs whose pictures are fetched and read at once.
_THREADS = 4


class _FetcherOf:
    """Fetches for a job until that has ended, or its other links would keep a thread from those that wait."""

    def __init__(self, job: Job, fetcher: LinkFetcher) -> None:
        self._job, self._fetcher = job, fetcher

    def fetch(self, field: str, url: str) -> bytes:
        if self._job.state.ended:
            raise Cancelled("the job has ended")
        return self._fetcher.fetch(field, url)


class Intake:
    """Fetches, reads and loads for jobs, in threads of its own, so that no step waits for a network or a file.

    ``controlnets`` gives those of the engine in use. ``gathered`` is called with a job whose pictures are there and the
    ControlNets that it has taken, ``failed`` with one whose cannot be had, and why.
    """

    def __init__(
        self,
        settings: Settings,
        controlnets: Callable[[], ControlNets],
        gathered: Callable[[Job, Held], None],
        failed: Callable[[Job, Exception], None],
    ) -> None:
        self._settings, self._fetcher = settings, LinkFetcher(settings)
        self._controlnets, self._gathered, self._failed = controlnets, gathered, failed
        self._gathering = ThreadPoolExecutor(_THREADS, thread_name_prefix="intake")
        # One: ControlNets are loaded one after the other, and wait for memory.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="controlnets")

    def begin(self, job: Job) -> None:
        """Get a job what it waits for."""
        self._gathering.submit(self._gather, job)

    def stop(self) -> None:
        """Returns when nothing is under way any more; all jobs have ended by then."""
        self._gathering.shutdown(cancel_futures=True)
        self._controlnets().wake()
        self._loading.shutdown(cancel_futures=True)

    def _gather(self, job: Job) -> None:
        if job.state.ended:
            return
        try:
            job.pictures = Gatherer(self._settings, _FetcherOf(job, self._fetcher)).gather(job.request)
            held = self._controlnets().take_loaded(job.controlnet_paths)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's alone
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
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's alone
            self._failed(job, error)
            return
        self._gathered(job, held)
