"""Running a task in a child process: the parent's side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from triton_diffusers.attached import attached
from triton_diffusers.build.errors import BuildError
from triton_diffusers.build.tasks import Drawn, Message, Timed, _Task
from triton_diffusers.settings import PREFIX

_SHOWN = 300  # characters

# Says how far a task is: steps done, and how many there are.
Advance = Callable[[int, int], None]


def run_task(task: _Task, log: Path, lock: int, advance: Advance) -> Drawn | Timed | None:
    """Run a task to its end, in a process that writes to ``log`` and holds ``lock`` (a descriptor) while it lives.

    Raises ``BuildError`` with the reason if it fails or is killed.
    """
    # What an operator has set for a server, such as its limits, is not for here; the task says everything.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603  # our own program
            # Killed when the build is: a compiler that nobody waits for would keep a core and gigabytes for minutes.
            attached([sys.executable, "-m", "triton_diffusers.build.child"], death_signal=signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            pass_fds=(lock,),
        )
        last = Message()
        try:
            if process.stdin is None or process.stdout is None:
                raise AssertionError("both are pipes")
            with process.stdin as stdin, process.stdout as stdout:
                try:
                    stdin.write(task.model_dump_json().encode())
                    stdin.close()
                except BrokenPipeError:
                    pass  # it has died already; why is seen below
                for line in stdout:
                    message = _read(line)
                    if message is not None and message.total:
                        advance(message.done, message.total)
                    elif message is not None:
                        last = message
            code = process.wait()
        finally:
            process.kill()
            process.wait()
    if last.error is not None:
        raise BuildError(f"{last.error} (all that was said: {log})")
    if code:
        raise BuildError(f"{_ended(code)}{_last_line(log)} (all that was said: {log})")
    return last.result


def _read(line: bytes) -> Message | None:
    try:
        return Message.model_validate_json(line)
    except ValidationError:
        return None


def _ended(code: int) -> str:
    if code > 0:
        return f"the process ended with code {code}"
    hint = "; the machine may have run out of memory" if -code == signal.SIGKILL else ""
    return f"the process was ended by signal {-code}{hint}"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()[:_SHOWN]}" if lines else ""
