"""Following jobs: the progress of one, and the ends of several. Flows, see ``effects``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from triton_diffusers_client.errors import ClientError, NotFoundError, RequestTimeoutError
from triton_diffusers_client.gateway.documents import JobView
from triton_diffusers_client.gateway.effects import Close, Event, Flow, Next, Open, Reply, Send, Sleep, Stream
from triton_diffusers_client.gateway.faults import error_of_reply
from triton_diffusers_client.gateway.session import Session
from triton_diffusers_client.image import EncodedImage
from triton_diffusers_client.progress import JobState, Progress

# The gateway sends a comment each ten seconds.
_STREAM_SECONDS = 35.0
_MIN_QUEUE_SECONDS, _MAX_QUEUE_SECONDS = 0.25, 2.0
_MAX_END_SECONDS = 2.0
_IN_FLIGHT = (JobState.QUEUED, JobState.RUNNING)


class Following:
    """The progress of one job: its place while it is queued, then the events of its stream."""

    def __init__(self, session: Session, job_id: str, *, previews: bool) -> None:
        self._session = session
        self._job_id = job_id
        self._previews = previews
        self._view: JobView | None = None
        self._shown: Progress | None = None
        self._preview: EncodedImage | None = None
        self._stream: Stream | None = None
        self._last_event_id = ""
        self._queue_pause = _MIN_QUEUE_SECONDS
        self._failures = 0

    def next(self) -> Flow[Progress | None]:
        """Return the job's progress as soon as it has changed; None after its end."""
        while self._shown is None or not self._shown.state.ended:
            yield from self._advance()
            now = yield from self._progress()
            last = self._shown
            if last is None or replace(now, elapsed_seconds=last.elapsed_seconds) != last:
                self._shown = now
                return now
        return None

    def close(self) -> Flow[None]:
        """Close the stream."""
        stream, self._stream = self._stream, None
        if stream is not None:
            yield Close(stream)

    def _advance(self) -> Flow[None]:
        """Bring the view up to date, after a pause or an event."""
        if self._view is not None and self._view.state is JobState.RUNNING:
            event = yield from self._next_event()
            if event is not None and event.kind == "progress":
                self._view = self._view.advanced(event)
                return
        elif self._view is not None:
            yield Sleep(self._queue_pause)
            self._queue_pause = min(_MAX_QUEUE_SECONDS, 1.5 * self._queue_pause)
        self._view = yield from self._session.view(self._job_id)

    def _progress(self) -> Flow[Progress]:
        assert self._view is not None  # noqa: S101
        if self._view.state is not JobState.RUNNING:
            self._preview = None
        elif self._previews:
            with suppress(ClientError):  # a preview is a convenience
                self._preview = (yield from self._session.preview(self._job_id)) or self._preview
        return self._view.progress(self._preview)

    def _next_event(self) -> Flow[Event | None]:
        """Return the next event, over a new connection if one breaks; None at the stream's end."""
        while True:
            try:
                if self._stream is None and not (yield from self._open()):
                    return None
                event: Event | None = yield Next(self._stream)
            except ClientError as error:
                yield from self.close()
                self._failures += 1
                pause = self._session.attempts.pause_after(error, self._failures, None, worth_it=True)
            else:
                break
            yield Sleep(pause)
        if event is None:
            yield from self.close()
            yield Sleep(_MIN_QUEUE_SECONDS)  # a gateway that stops ends its streams
            return None
        self._failures = 0
        self._last_event_id = event.id
        return event

    def _open(self) -> Flow[bool]:
        """Open the stream after the last event; return False if the gateway has no more events."""
        headers = {**self._session.headers, "accept": "text/event-stream", "cache-control": "no-store"}
        if self._last_event_id:
            headers["last-event-id"] = self._last_event_id
        url = self._session.url(f"/api/jobs/{self._job_id}/events")
        opened: Stream | Reply = yield Open(Send("GET", url, headers, seconds=_STREAM_SECONDS))
        if not isinstance(opened, Reply):
            self._stream = opened
            return True
        if not 200 <= opened.status < 300:
            raise error_of_reply(opened)
        return False


class Completion:
    """The ends of several jobs, in their order, over one connection whatever their number is."""

    def __init__(self, session: Session, job_ids: Iterable[str], timeout: float | None) -> None:
        self._session = session
        self._pending = dict.fromkeys(job_ids)
        self._ended: list[tuple[str, JobView | None]] = []
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def next(self) -> Flow[tuple[str, JobView | None] | None]:
        """Return the id and the view of the next job that has ended (None: it was deleted); None after the last one.

        Raises ``RequestTimeoutError`` when the time is over.
        """
        while self._pending and not self._ended:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            oldest = next(iter(self._pending))
            yield from self._look(oldest, _MAX_END_SECONDS if left is None else max(0.0, min(left, _MAX_END_SECONDS)))
            if len(self._pending) > 1 or not self._ended:
                in_flight = yield from self._session.jobs(_IN_FLIGHT, "", None)
                ids = {view.id for view in in_flight}
                for job_id in [job_id for job_id in self._pending if job_id not in ids]:
                    yield from self._look(job_id, 0.0)
            if not self._ended and left is not None and left <= 0:
                raise RequestTimeoutError(f"{len(self._pending)} jobs are not done after {self._timeout:g} s")
        self._ended.sort(key=lambda pair: (pair[1].document.get("ended") or 0.0) if pair[1] else 0.0)
        return self._ended.pop(0) if self._ended else None

    def _look(self, job_id: str, wait: float) -> Flow[None]:
        if job_id not in self._pending:
            return
        try:
            view = yield from self._session.view(job_id, wait)
        except NotFoundError:
            view = None
        if view is None or view.state.ended:
            del self._pending[job_id]
            self._ended.append((job_id, view))
