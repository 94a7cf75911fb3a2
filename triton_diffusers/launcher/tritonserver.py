"""The tritonserver process: started so that it cannot outlive its launcher, its log passed on line by line."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, cast

from triton_diffusers.launcher.processes import model_processes
from triton_diffusers.util.process import attached

_KEPT_LINES = 1000
_STOP_TICK = 0.2  # seconds
_LAST_WORDS = 2.0  # seconds that tritonserver gets once its last model process has ended
_SPARE = 5.0  # seconds beyond its own exit timeout
_IDLE_SECONDS = 5.0  # that it gets once no request is in flight and no model process ends any more
_NO_REQUESTS = "All models are stopped, unloading models"  # Triton's words for that
_REASON = re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.*)")
_CRASH = re.compile(r"^terminate called after throwing an instance of '(?P<exception>.*)'")
_ERROR = re.compile(r"^E\d{4} .*?\] \"?(?P<reason>.*?)\"?$|^(?:error|\S*tritonserver): (?P<error>.*)$")


class TritonServer:
    """One tritonserver, in a session of its own: Ctrl-C at the terminal is the launcher's to handle."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        region_prefix: str,
        inherited: int,
        on_line: Callable[[str], None],
    ) -> None:
        """Start it. Call from the main thread: the kernel ends the server with the *thread* that started it.

        ``inherited`` is a file descriptor that the server and its model processes keep open while they live.
        ``on_line`` gets each line that they write, in a thread of its own.
        """
        self._region_prefix = region_prefix
        self._on_line = on_line
        self._unloading = False  # Triton has said that no request is in flight
        self._tail: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._process = subprocess.Popen(  # noqa: S603 - the command is the launcher's own
            # The engines end with the launcher, and SIGTERM would make it wait for requests that they had.
            attached(command, death_signal=signal.SIGKILL),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            pass_fds=(inherited,),
            start_new_session=True,
        )
        stream = cast("IO[str]", self._process.stdout)  # a pipe, as asked for
        self._reader = threading.Thread(target=self._pass_on, args=(stream,), name="log", daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while it runs, negative for a signal."""
        return self._process.poll()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most ``seconds``; return True if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)
        return self.exit_code is not None

    def stop(
        self, exit_timeout: float, is_forced: Callable[[], bool], is_idle: Callable[[], bool] = lambda: False
    ) -> None:
        """End it and every model process; requests in flight get ``exit_timeout`` seconds.

        Takes little more than that, whatever Triton does; at once when ``is_forced()`` becomes true. ``is_idle()`` is
        true if no request is known to be in flight: Triton often waits its whole time for nothing. It does so for a
        model that an open gRPC stream has called, for a call that its caller has cancelled, and for an instance whose
        process had died and been replaced.
        """
        begun = changed = time.monotonic()
        processes = model_processes(self._region_prefix)
        had_models = bool(processes)
        self._process.terminate()
        while not self.wait(_STOP_TICK):
            now = time.monotonic()
            living = model_processes(self._region_prefix)
            lonely = had_models and not living
            if living != processes or not (lonely or self._unloading or is_idle()):
                processes, changed = living, now
            patience = _LAST_WORDS if lonely else _IDLE_SECONDS
            if now - changed > patience or is_forced() or now - begun > exit_timeout + _SPARE:
                break
        self.kill()

    def kill(self) -> None:
        """Kill all that is left of it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in model_processes(self._region_prefix):
            process.kill()
        self._process.wait()
        self._reader.join(timeout=1.0)

    def failure(self) -> str:
        """Return the reason of its end, from its last lines, as one line."""
        self._reader.join(timeout=2.0)  # the log may lag behind the end
        for line in self._tail:
            if found := _CRASH.search(line):
                return f"it crashed ({found['exception']}), see its log"
        if self.exit_code is not None and self.exit_code < 0:
            return f"{signal.Signals(-self.exit_code).name}, see its log"
        errors: list[str] = []
        for line in self._tail:
            if found := _REASON.search(line):
                return f"model {found['model']} failed to load: {_first_line(found['reason'])}"
            if found := _ERROR.search(line):
                errors.append(_first_line(found["reason"] or found["error"]))
        return errors[-1] if errors else f"exit code {self.exit_code}, see its log"

    def _pass_on(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                text = line.rstrip("\n")
                self._tail.append(text)
                self._unloading = self._unloading or _NO_REQUESTS in text
                # The reader of the log may be gone; the server would block if its output were not read.
                with contextlib.suppress(OSError, ValueError):
                    self._on_line(text)


def _first_line(message: str) -> str:
    """Return a message without its traceback: Triton writes line breaks as backslash and n."""
    return message.partition("\\n")[0].strip(' "')
