"""Client of engine processes: holds requests until they are answered, and hands them over again when an engine dies."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from triton_diffusers.api.request import GenerationRequest, GenerationResult, ModelDefaults
from triton_diffusers.engine_process.address import EngineAddress
from triton_diffusers.engine_process.channel import Channel, connect
from triton_diffusers.engine_process.messages import (
    Cancel,
    Failed,
    Hello,
    LoadFailed,
    Metrics,
    Ready,
    Started,
    Submit,
    Succeeded,
)
from triton_diffusers.errors import Busy, Cancelled, EngineFailure, TimedOut, TritonDiffusersError
from triton_diffusers.jobs.board import BoardEntry, JobBoard
from triton_diffusers.settings import Settings

logger = logging.getLogger(__name__)

_BORN = time.time()  # when this process began, or soon after
_CONNECT_INTERVAL_SECONDS = 0.05
_MAX_DEATHS = 2  # of engine processes while they had a request, after which it fails
_STOPPING = "the server is stopping; send the request again later"

Outcome = GenerationResult | TritonDiffusersError


class EngineUnavailable(Exception):
    """No engine can be loaded; the message is the engine's own."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request until its end. ``link`` is None while no engine has it, ``since`` the time of that (monotonic).

    ``deaths`` counts the engines that died after they had started it.
    """

    request: GenerationRequest
    with_images: bool
    on_end: Callable[[Outcome], None]
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    arrived: float = field(default_factory=time.time)
    link: _Link | None = None
    since: float = field(default_factory=time.monotonic)
    started: bool = False
    deaths: int = 0

    @property
    def work(self) -> float:
        """Estimated cost, relative to other requests."""
        return self.request.image_num * self.request.steps * prod(self.request.size)

    @property
    def timed_out(self) -> bool:
        """True if the request's timeout has expired."""
        return 0 < self.request.timeout_seconds < time.time() - self.arrived

    def board_entry(self, model: str) -> BoardEntry:
        """Return the request as shown on the board until an engine reports it."""
        return BoardEntry(
            job_id=self.job_id,
            pid=os.getpid(),
            model=model,
            task_id=self.request.task_id,
            state="queued",
            step=0,
            steps=0,
            image_num=self.request.image_num,
            images_done=0,
            arrived=self.arrived,
            ended=None,
            error_msg="",
        )


@dataclass(slots=True, eq=False)
class _Link:
    """One engine. ``channel`` is None while it is not connected or not ready."""

    address: EngineAddress
    channel: Channel | None = None


class EngineClient:
    """The engines of one model, seen from the process that holds its requests. Thread-safe.

    ``on_end`` of a request and ``on_metrics`` are called by threads of the client, without its lock.
    """

    def __init__(
        self,
        model: str,
        addresses: Sequence[EngineAddress],
        settings: Settings,
        board: JobBoard,
        on_metrics: Callable[[Metrics], None],
    ) -> None:
        self._model = model
        self._settings = settings
        self._board = board
        self._on_metrics = on_metrics
        self._changed = threading.Condition()  # guards what follows
        self._links = [_Link(address) for address in addresses]
        self._channels: set[Channel] = set()
        self._pending: dict[str, PendingRequest] = {}
        self._defaults: ModelDefaults | None = None
        self._failure = ""
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_connected, args=(link,), name=link.address.name, daemon=True)
            for link in self._links
        ]
        self._threads.append(threading.Thread(target=self._watch_waiting, name="waiting requests", daemon=True))

    def start(self) -> None:
        """Connect, and return when the first engine is ready. Raises ``EngineUnavailable``."""
        for thread in self._threads:
            thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._defaults is not None or self._failure or self._closing.is_set())
            if self._defaults is None:
                raise EngineUnavailable(self._failure or _STOPPING)

    @property
    def defaults(self) -> ModelDefaults:
        """The model's own values of fields that a request leaves out."""
        if self._defaults is None:
            raise EngineUnavailable("no engine has been ready yet")
        return self._defaults

    def submit(
        self, request: GenerationRequest, on_end: Callable[[Outcome], None], *, with_images: bool
    ) -> PendingRequest:
        """Hand a request to the engine with the least work. ``on_end`` is called once, with its result or error.

        Raises:
            Busy: the client is closed, or no engine is there and too many requests wait for one.
        """
        pending = PendingRequest(request, with_images, on_end)
        with self._changed:
            if self._closing.is_set():
                raise Busy(_STOPPING)
            waiting = sum(other.link is None for other in self._pending.values())
            if waiting >= self._settings.max_queue:
                raise Busy(f"{waiting} requests wait for the engine already, the limit; send the request again later")
            self._pending[pending.job_id] = pending
            # Callers can find it from here on: an engine may come late, or die before it reports the request.
            self._board.post(pending.board_entry(self._model))
            self._hand_over(pending)
        return pending

    def cancel(self, pending: PendingRequest) -> None:
        """Cancel a request; it ends at its next step, at once if no engine has it."""
        with self._changed:
            if pending.link is not None and pending.link.channel is not None:
                pending.link.channel.send(Cancel(pending.job_id))
                return
            waited = self._pending.pop(pending.job_id, None) is not None
        if waited:
            self._give_up(pending, Cancelled("the job was cancelled"))

    def close(self) -> None:
        """End all requests and disconnect."""
        self._closing.set()
        with self._changed:
            channels, left = list(self._channels), list(self._pending.values())
            self._pending.clear()
            self._changed.notify_all()
        for channel in channels:
            channel.close()
        for pending in left:
            self._give_up(pending, Busy(_STOPPING))
        for thread in self._threads:
            if thread.is_alive():  # another thread may be starting them still
                thread.join()

    def _hand_over(self, pending: PendingRequest) -> None:
        """Send a request to the connected engine with the least work, if there is one. Call with the lock."""
        ready = [link for link in self._links if link.channel is not None]
        pending.link = min(ready, key=self._work_of, default=None)
        if pending.link is None or pending.link.channel is None:
            return
        pending.link.channel.send(
            Submit(
                pending.job_id,
                self._model,
                pending.request,
                pending.arrived,
                pending.with_images,
                is_suspect=pending.deaths > 0,
            )
        )

    def _work_of(self, link: _Link) -> float:
        return sum(pending.work for pending in self._pending.values() if pending.link is link)

    def _keep_connected(self, link: _Link) -> None:
        while not self._closing.is_set():
            try:
                channel = connect(link.address.socket)
            except OSError:  # it does not listen yet
                pass
            else:
                self._communicate(link, channel)
            self._closing.wait(_CONNECT_INTERVAL_SECONDS)

    def _communicate(self, link: _Link, channel: Channel) -> None:
        with self._changed:
            self._channels.add(channel)
        if self._closing.is_set():
            channel.close()
        channel.send(Hello(self._model, os.getpid(), _BORN))
        self._receive(link, channel)
        channel.close()
        with self._changed:
            self._channels.remove(channel)
        self._lose(link)

    def _receive(self, link: _Link, channel: Channel) -> None:
        for message in channel.receive():
            match message:
                case Started(job_id):
                    self._started(job_id)
                case Succeeded(job_id, result):
                    self._end(job_id, result)
                case Failed(job_id, error):
                    self._end(job_id, error)
                case Metrics():
                    self._on_metrics(message)
                case Ready(defaults):
                    self._connected(link, channel, defaults)
                case LoadFailed(reason):
                    with self._changed:
                        self._failure = reason
                        self._changed.notify_all()

    def _connected(self, link: _Link, channel: Channel, defaults: ModelDefaults) -> None:
        with self._changed:
            self._defaults, link.channel = defaults, channel
            for pending in self._pending.values():
                if pending.link is None:
                    self._hand_over(pending)
            self._changed.notify_all()

    def _started(self, job_id: str) -> None:
        with self._changed:
            if job_id in self._pending:
                self._pending[job_id].started = True

    def _lose(self, link: _Link) -> None:
        """Hand the requests of an engine that has died to another one, or keep them until it is back."""
        if self._closing.is_set():
            return
        guilty = []
        with self._changed:
            link.channel = None
            lost = [pending for pending in self._pending.values() if pending.link is link]
            for pending in lost:
                pending.deaths += pending.started
                pending.link, pending.started, pending.since = None, False, time.monotonic()
                if pending.deaths >= _MAX_DEATHS:
                    guilty.append(self._pending.pop(pending.job_id))
                else:
                    self._hand_over(pending)
        if lost:
            logger.warning("an engine process has died; %d requests are handed over again", len(lost) - len(guilty))
        for pending in guilty:
            self._give_up(
                pending,
                EngineFailure(
                    f"task {pending.request.task_id} was in the engine alone when it died, and before that once with"
                    " others; it is not tried again"
                ),
            )

    def _watch_waiting(self) -> None:
        """End requests that no engine has when their time is over, and those cancelled on the board.

        Engines look for cancellations only once they have started a request.
        """
        while not self._closing.wait(self._settings.poll_seconds):
            with self._changed:
                idle = [pending for pending in self._pending.values() if not pending.started]
                waiting = [pending for pending in idle if pending.link is None]
                expired = [(pending, error) for pending in waiting if (error := self._expiry(pending)) is not None]
                for pending, _ in expired:
                    del self._pending[pending.job_id]
            for pending, error in expired:
                self._give_up(pending, error)
            cancelled = set(self._board.cancellations()) if idle else set()
            for pending in idle:
                if pending.job_id in cancelled:
                    self.cancel(pending)

    def _expiry(self, pending: PendingRequest) -> TritonDiffusersError | None:
        """Return the error of a request that has waited too long, None if it may wait."""
        if pending.timed_out:
            return TimedOut(pending.request.timeout_seconds)
        patience = self._settings.engine_wait_seconds
        if time.monotonic() - pending.since > patience:
            return Busy(f"the engine has not come back in {patience:g} s; send the request again later")
        return None

    def _give_up(self, pending: PendingRequest, error: TritonDiffusersError) -> None:
        """End a removed request in the place of an engine, which would have told the board."""
        state = "cancelled" if isinstance(error, Cancelled | Busy) else "failed"
        self._board.end(pending.job_id, state, str(error))
        _tell(pending, error)

    def _end(self, job_id: str, outcome: Outcome) -> None:
        with self._changed:
            pending = self._pending.pop(job_id, None)
        if pending is not None:
            _tell(pending, outcome)


def _tell(pending: PendingRequest, outcome: Outcome) -> None:
    try:
        pending.on_end(outcome)
    except Exception:  # the thread has other requests to end
        logger.exception("task %s could not be answered; this is a bug", pending.request.task_id)
