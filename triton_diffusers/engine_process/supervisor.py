"""Supervisors: each starts an engine process, and starts it again when it has died or hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from triton_diffusers.engine_process.address import EngineAddress
from triton_diffusers.engine_process.channel import Channel, connect
from triton_diffusers.engine_process.messages import LoadFailed, Ping, Ready, Watch
from triton_diffusers.settings import PREFIX
from triton_diffusers.util.backoff import backoff
from triton_diffusers.util.files import open_locked
from triton_diffusers.util.process import attached, python

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.05
_PING_SECONDS = 0.5
_MAX_LOAD_SECONDS = 1800.0
_STOP_SECONDS = 5.0  # from SIGTERM to SIGKILL: results may be on their way to the store
_CALM_SECONDS = 60.0  # a process that has lived this long is started again at once
_MAX_DELAY_SECONDS = 30.0
_MAX_DELAY_AFTER_SERVING_SECONDS = 2.0  # requests that kill an engine must not be able to end the service for long


class EngineSupervisor:
    """Supervisor of one engine, in a thread of its own; its process ends with the thread.

    It is active while it holds the engine's lock, so that of several supervisors of one engine, in processes that
    share it, another one takes over when a process ends.
    """

    def __init__(
        self,
        address: EngineAddress,
        environment: Mapping[str, str],
        *,
        hang_seconds: float,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """``environment`` holds the settings. A process that does not answer for ``hang_seconds`` (0: ever) is killed.

        ``on_line`` receives each line of its output; without it the output goes where that of this process goes.
        """
        self._address = address
        self._command = [python(), "-X", "utf8", "-m", "triton_diffusers.engine_process", address.name]
        self._command.append(str(address.number))
        self._environment = {**environment, f"{PREFIX}DEVICE": address.device}
        self._hang_seconds = hang_seconds
        self._on_line = on_line
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{address.name} supervisor", daemon=True)
        self._current: _Run | None = None
        self._was_ready = False

    @property
    def is_ready(self) -> bool:
        """True if this supervisor's process runs and its engine is loaded."""
        return self._current is not None and self._current.is_ready

    @property
    def failure(self) -> str:
        """Why the engine cannot be loaded at the first attempt; empty if it can, as far as is known."""
        run = self._current
        return "" if run is None or self._was_ready else run.failure

    def start(self) -> None:
        """Begin; ``failure`` is set if the engine cannot be loaded at the first attempt, which ends the supervision."""
        self._thread.start()

    def stop(self) -> None:
        """End the process, if it is this supervisor's; return when it has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        lock = self._wait_for_lock()
        if lock is None:
            return
        try:
            self._keep_running()
        finally:
            os.close(lock)

    def _wait_for_lock(self) -> int | None:
        while not self._stopping.is_set():
            with contextlib.suppress(BlockingIOError):
                return open_locked(self._address.lock, wait=False)
            self._stopping.wait(_PING_SECONDS)
        return None

    def _keep_running(self) -> None:
        deaths = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            self._current = run = _Run(self._command, self._environment, self._on_line)
            reason = run.watch(self._address, self._hang_seconds, self._stopping)
            self._was_ready = self._was_ready or run.is_ready
            if self.failure:
                return
            self._current = None
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _CALM_SECONDS:
                deaths = 0
            longest = _MAX_DELAY_AFTER_SERVING_SECONDS if run.is_ready else _MAX_DELAY_SECONDS
            delay = 0.0 if deaths == 0 else backoff(deaths - 1, first=1.0, longest=longest)
            deaths += 1
            when = f"in {delay:.0f} s" if delay else "now"
            logger.error("engine %d has died: %s; it is started again %s", self._address.number, reason, when)
            self._stopping.wait(delay)


class _Run:
    """One process, from its start to its end. ``failure`` is why its engine cannot be loaded."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None] | None
    ) -> None:
        self.is_ready = False
        self.failure = ""
        self._heard = time.monotonic()
        self._receiver: threading.Thread | None = None
        self._process = subprocess.Popen(  # noqa: S603 - the command is our own
            attached(command, death_signal=signal.SIGKILL),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=None if on_line is None else subprocess.PIPE,
            stderr=None if on_line is None else subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            process_group=0,  # Ctrl-C at the terminal is not for it
        )
        if on_line is not None:
            threading.Thread(target=_pass_on, args=(self._process.stdout, on_line), name="log", daemon=True).start()

    def watch(self, address: EngineAddress, hang_seconds: float, stopping: threading.Event) -> str:
        """Return why the process has ended, in words; end it when ``stopping`` is set, or when it hangs."""
        channel = None
        hung = ""
        pinged = 0.0
        try:
            while self._process.poll() is None and not stopping.wait(_TICK_SECONDS):
                now = time.monotonic()
                if channel is None:
                    channel = self._connect(address)
                elif now - pinged > _PING_SECONDS:
                    pinged = now
                    channel.send(Ping())
                limit = hang_seconds if self.is_ready else max(hang_seconds, _MAX_LOAD_SECONDS)
                if hang_seconds and now - self._heard > limit:
                    hung = f"it has not answered for {now - self._heard:.0f} s"
                    self._process.kill()
        finally:
            code = self._end()
            if self._receiver is not None:
                self._receiver.join(_PING_SECONDS)  # it reads the last words
            if channel is not None:
                channel.close()
        return hung or (signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def _connect(self, address: EngineAddress) -> Channel | None:
        try:
            channel = connect(address.socket)
        except OSError:  # it does not listen yet
            return None
        channel.send(Watch())
        self._receiver = threading.Thread(target=self._receive, args=(channel,), name="pongs", daemon=True)
        self._receiver.start()
        return channel

    def _receive(self, channel: Channel) -> None:
        for message in channel.receive():
            self._heard = time.monotonic()
            if isinstance(message, Ready):
                self.is_ready = True
            elif isinstance(message, LoadFailed):
                self.failure = message.reason

    def _end(self) -> int:
        """End the process, gently if it still runs, and return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            self._process.kill()
        return self._process.wait()


def _pass_on(stream: IO[str], on_line: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            with contextlib.suppress(OSError, ValueError):  # whoever reads our log may be gone
                on_line(line.rstrip("\n"))
