"""The worker process of a build: reads one task from standard input, runs it, and reports on standard output.

Started as ``python -m triton_diffusers.compile.worker``, only by ``tasks.run_task``.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import BinaryIO

from pydantic import TypeAdapter

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.tasks import Message, Task

log = logging.getLogger(__name__)

_MAX_CHARACTERS = 600  # of a reason


def main() -> int:
    """Run the task; the exit code is 1 if it failed, with the reason in the last message."""
    # Libraries print to standard output, which must hold messages only.
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    task: Task = TypeAdapter(Task).validate_json(sys.stdin.buffer.read())

    def advance(done: int, total: int) -> None:
        _send(messages, Message(done=done, total=total))

    try:
        from triton_diffusers.compile.stages import do  # here, so that the parent learns of a broken library

        result = do(task, advance)
    except Exception as error:  # third-party code may raise anything; the parent reports it
        log.exception("the task failed")
        is_own = isinstance(error, BuildError | LoadError)  # with complete messages
        text = str(error) if is_own else f"{type(error).__name__}: {error}"
        _send(messages, Message(error=" ".join(text.split())[:_MAX_CHARACTERS]))
        return 1
    _send(messages, Message(result=result))
    return 0


def _send(messages: BinaryIO, message: Message) -> None:

    messages.write(message.model_dump_json().encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
