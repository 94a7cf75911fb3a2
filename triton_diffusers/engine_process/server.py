"""The engine process: runs the requests of all models that share its settings, on one device."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.engine_process.channel import Channel, check_peer, listen
from triton_diffusers.engine_process.messages import (
    Cancel,
    Failed,
    Hello,
    LoadFailed,
    Message,
    MetricKey,
    Metrics,
    Ping,
    Pong,
    Ready,
    Started,
    Submit,
    Succeeded,
    Watch,
)
from triton_diffusers.engine_process.metrics import MetricsCollector
from triton_diffusers.engine_process.optimizer_board import OptimizerOnBoard
from triton_diffusers.engine_process.quarantine import Quarantine
from triton_diffusers.errors import Busy, Cancelled, EngineFailure, TritonDiffusersError
from triton_diffusers.inflight.job import Job, Origin
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.inflight.trial import try_out
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.optimize.optimizer import Optimizer, build_command, build_environment
from triton_diffusers.settings import Settings

logger = logging.getLogger(__name__)

LOAD_FAILED = os.EX_CONFIG  # exit code
_DIED = os.EX_SOFTWARE
_FLUSH_SECONDS = 1.0
_TICK_SECONDS = 0.2
_FAREWELL_SECONDS = 1.0  # after a failed load, for clients that are about to connect: all have to be told why


@dataclass(slots=True, eq=False)
class _Request:
    """A request of a client. ``job`` is None until the quarantine has released it."""

    session: _Session
    message: Submit
    job: Job | None = None

    @property
    def is_suspect(self) -> bool:
        """True if an engine process died while it had the request."""
        return self.message.is_suspect


@dataclass(slots=True, eq=False)
class _Session:
    """A connection; ``hello`` is its first message."""

    channel: Channel
    hello: Hello | Watch | None = None

    @property
    def model(self) -> str:
        """The client's model; empty for the supervisor."""
        return self.hello.model if isinstance(self.hello, Hello) else ""


class EngineServer:
    """Requests of all clients, on their way to one loop and back."""

    def __init__(self, settings: Settings, number: int) -> None:
        self._settings = settings
        self._number = number
        self._lock = threading.RLock()  # guards what follows
        self._sessions: list[_Session] = []
        self._requests: dict[str, _Request] = {}
        self._quarantine: Quarantine[_Request] = Quarantine()
        self._state: Ready | LoadFailed | None = None
        self._releasing = False
        self._resources = ExitStack()

    def accept(self, listener: socket.socket) -> None:
        """Serve every client that connects, each in a thread; returns when the listener is shut down."""
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            try:
                check_peer(end)
            except PermissionError as error:
                logger.warning("a connection is refused: %s", error)
                end.close()
                continue
            session = _Session(Channel(end))
            threading.Thread(target=self._serve, args=(session,), name="client", daemon=True).start()

    def load(self, chosen: Future[EngineChoice]) -> None:
        """Load the engine and tell the clients. Raises whatever keeps it from being loaded."""
        settings = self._settings
        try:
            with ExitStack() as made:
                choice = chosen.result()
                self._board = JobBoard(settings.runtime_dir, settings.job_history_seconds)
                made.callback(self._board.close)
                self._metrics = MetricsCollector(str(self._number), self._send_metrics)
                made.callback(self._metrics.close)
                self._loop = EngineLoop(
                    partial(choice.make, partial(try_out, settings=settings)),
                    settings,
                    name="engine",
                    board=self._board,
                    telemetry=self._metrics,
                    on_death=lambda: os._exit(_DIED),  # so that the requests are handed over to the next process
                )
                self._loop.start()
                made.callback(self._loop.stop)
                optimizer = Optimizer(
                    choice,
                    self._loop.swap,
                    (self._metrics, OptimizerOnBoard(f"engine {self._number}", self._board)),
                    lambda target: build_command(settings, target, force=choice.needs_force),
                    build_environment(settings),
                )
                optimizer.start()
                made.callback(optimizer.stop)
                self._resources = made.pop_all()
        except BaseException as error:
            reason = " ".join(str(error).split()) if isinstance(error, LoadError) else one_line(error)
            self._tell(LoadFailed(reason))
            raise
        self._tell(Ready(self._loop.defaults))

    def close(self) -> None:
        """Disconnect the clients, which hand their requests over to others, and end everything that runs."""
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.channel.flush(_FLUSH_SECONDS)
            session.channel.close()
        self._resources.close()

    def _tell(self, state: Ready | LoadFailed) -> None:
        with self._lock:
            self._state = state
            for session in self._sessions:
                self._introduce(session)

    def _introduce(self, session: _Session) -> None:
        """Tell a client of the engine's state, once both are known. Call with the lock."""
        if session.hello is None or self._state is None:
            return
        session.channel.send(self._state)
        if isinstance(self._state, Ready) and isinstance(session.hello, Hello):
            self._board.forget_before(session.hello.pid, session.hello.born)
            self._metrics.introduce(session.hello.model)
            self._metrics.repeat()

    def _serve(self, session: _Session) -> None:
        with self._lock:
            self._sessions.append(session)
        for message in session.channel.receive():
            try:
                self._take(session, message)
            except Exception:
                logger.exception("a message of a client failed; this is a bug")
        session.channel.close()
        with self._lock:
            self._sessions.remove(session)
            if isinstance(self._state, Ready):
                self._metrics.repeat()
            lost = [request for request in self._requests.values() if request.session is session]
        for request in lost:
            self._cancel(request)

    def _take(self, session: _Session, message: Message) -> None:
        match message:
            case Hello() | Watch():
                with self._lock:
                    session.hello = message
                    self._introduce(session)
            case Ping():
                session.channel.send(Pong())
            case Submit():
                self._admit(_Request(session, message))
            case Cancel(job_id):
                with self._lock:
                    found = self._requests.get(job_id)
                if found is not None:
                    self._cancel(found)

    def _admit(self, request: _Request) -> None:
        with self._lock:
            self._requests[request.message.job_id] = request
            if self._quarantine.held >= self._settings.max_queue and not request.is_suspect:
                self._refuse(request, Busy("the engine has died and is recovering; send the request again later"))
                return
            self._quarantine.add(request)
            self._release()

    def _refuse(self, request: _Request, error: TritonDiffusersError) -> None:
        self._metrics.request_ended(request.message.model, "refused", 0.0, 0.0)
        self._board.forget(request.message.job_id)
        self._finish(request, Failed(request.message.job_id, error))

    def _release(self) -> None:
        """Start the requests that may run now."""
        with self._lock:
            if self._releasing:  # a request has ended while it was started, and the loop below looks again
                return
            self._releasing = True
            try:
                for request in self._quarantine.release():
                    self._start(request)
            finally:
                self._releasing = False

    def _start(self, request: _Request) -> None:
        message = request.message
        origin = Origin(
            model=message.model,
            job_id=message.job_id,
            pid=request.session.hello.pid if isinstance(request.session.hello, Hello) else os.getpid(),
            arrived=message.arrived,
            on_start=lambda: self._begin(request),
            on_end=lambda job: self._ended(request, job),
        )
        try:
            request.job = self._loop.submit(message.request, origin)
        except TritonDiffusersError as error:
            self._refuse(request, error)

    def _begin(self, request: _Request) -> None:
        """Tell the client that work begins. If the work kills this process, the client must have been told."""
        request.session.channel.send(Started(request.message.job_id))
        request.session.channel.drain(_FLUSH_SECONDS)

    def _cancel(self, request: _Request) -> None:
        with self._lock:
            job = request.job
            if job is None and self._requests.get(request.message.job_id) is request:
                error = Cancelled("the job was cancelled")
                self._board.end(request.message.job_id, "cancelled", str(error))
                self._finish(request, Failed(request.message.job_id, error))
        if job is not None:
            self._loop.cancel(job)

    def _ended(self, request: _Request, job: Job) -> None:
        job_id = request.message.job_id
        if job.result is not None:
            result = job.result if request.message.with_images else replace(job.result, images=())
            self._finish(request, Succeeded(job_id, result))
        else:
            error = job.error
            if not isinstance(error, TritonDiffusersError):
                error = EngineFailure("the job ended without a result")
            self._finish(request, Failed(job_id, error))

    def _finish(self, request: _Request, message: Succeeded | Failed) -> None:
        with self._lock:
            self._requests.pop(message.job_id, None)
            self._quarantine.remove(request)
            request.session.channel.send(message)
            if request.is_suspect:  # or it would be blamed for the death of the process by the next request
                request.session.channel.drain(_FLUSH_SECONDS)
            self._release()

    def _send_metrics(self, metrics: Metrics) -> None:
        """Send each metric to one client: that of its model, or the first for those of the engine."""
        with self._lock:
            receivers = {session.model: session for session in reversed(self._sessions) if session.model}
            first = next((session for session in self._sessions if session.model), None)
        for session in receivers.values():

            def is_for(key: MetricKey, session: _Session = session) -> bool:
                model = dict(key[1]).get("model")
                return session is (first if model is None else receivers.get(model))

            added = {key: amount for key, amount in metrics.added.items() if is_for(key)}
            values = {key: value for key, value in metrics.values.items() if is_for(key)}
            if added or values:
                session.channel.send(Metrics(added, values))


def run(settings: Settings, path: Path, number: int, chosen: Future[EngineChoice]) -> int:
    """Serve at the socket ``path`` until SIGTERM, and return the exit code. Call from the main thread."""
    listener = listen(path)
    server = EngineServer(settings, number)
    threading.Thread(target=server.accept, args=(listener,), name="listener", daemon=True).start()
    try:
        server.load(chosen)
    except Exception as error:
        logger.log(logging.ERROR, "the engine cannot be loaded: %s", error, exc_info=not isinstance(error, LoadError))
        time.sleep(_FAREWELL_SECONDS)
        server.close()
        return LOAD_FAILED
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    while not signals:  # an event that is set by a signal's handler can block the thread that waits for it for ever
        time.sleep(_TICK_SECONDS)
    # Closing alone would not wake the thread that accepts, and clients would hand their requests over to this engine.
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    server.close()
    return 0
