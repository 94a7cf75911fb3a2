"""The child process of a build: reads one task from standard input, does it, and says on standard output how it went.

Started as ``python -m triton_diffusers.compile.worker``, by ``children.run_task`` alone.
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

_MOST_CHARACTERS = 600  # of a reason


def main() -> int:
    """Do the task; the exit code is 1 if it failed, which the last message tells the reason of."""
    # Libraries print to standard output; only messages may be there.
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    task: Task = TypeAdapter(Task).validate_json(sys.stdin.buffer.read())

    def advance(done: int, total: int) -> None:
        _say(messages, Message(done=done, total=total))

    try:
        from triton_diffusers.compile.stages import do  # here, so that the parent is told of a broken library

        result = do(task, advance)
    except Exception as error:  # whatever it is, the parent tells it
        log.exception("the task failed")
        known = isinstance(error, BuildError | LoadError)  # their messages say all
        text = str(error) if known else f"{type(error).__name__}: {error}"
        _say(messages, Message(error=" ".join(text.split())[:_MOST_CHARACTERS]))
        return 1
    _say(messages, Message(result=result))
    return 0


def _say(messages: BinaryIO, message: Message) -> None:
    messages.write(message.model_dump_json().encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
