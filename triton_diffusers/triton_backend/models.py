"""Base classes of the ``model.py`` files, which Triton calls.

Imports nothing of weight before ``initialize``: Triton first loads the file in a process that has none of its utilities
(to complete the config), which is over sooner without PyTorch.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from triton_diffusers.api.contract import Contract
from triton_diffusers.util.utf8 import use_utf8

if TYPE_CHECKING:
    from triton_diffusers.settings import Settings

_PARENT_SECONDS = 0.5  # between two looks whether the server still lives
_UNLOAD_SECONDS = 120  # more than any unloading takes
_STDERR = 2


class Handler(Protocol):
    """Handler of a model's requests."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response to each of Triton's requests, or None for one that is answered later."""

    def close(self) -> None:
        """Release all resources."""


class Model(ABC):
    """A model that reads the settings and passes requests to a handler."""

    @abstractmethod
    def make_handler(self, name: str, settings: Settings, environment: Mapping[str, str]) -> Handler:
        """Return the handler of the model's requests.

        ``name`` is the model's in the repository. ``environment`` holds the settings, for other processes.
        """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model; ``args`` are Triton's."""
        use_utf8()  # before any name is read
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
        from triton_diffusers.settings import Settings
        from triton_diffusers.triton_backend.parameters import settings_of
        from triton_diffusers.util.process_log import log_to_stderr

        log_to_stderr(args["model_name"])
        parameters = settings_of(args["model_config"])
        environment = {**os.environ, **Settings.as_environment(parameters)}
        self._handler = self.make_handler(args["model_name"], Settings.read(parameters), environment)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response to each of Triton's requests, or None for one that is answered later."""
        return self._handler.execute(requests)

    def finalize(self) -> None:
        """Unload the model."""
        # Metrics are released by round trips to the server, which hold Python's lock: if the server has died, they
        # never return, and the thread that watches for its death cannot run.
        faulthandler.dump_traceback_later(_UNLOAD_SECONDS, exit=True, file=_STDERR)
        try:
            self._handler.close()
        finally:
            faulthandler.cancel_dump_traceback_later()


def _end_with(server: int) -> None:
    """End this process after the server, its parent: the stub's own exit would wait for requests in flight.

    The kernel's death signal will not do: it comes when the server's *thread* ends that has started this process.
    """
    while os.getppid() == server:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


class GeneratingModel(Model):
    """A model that generates images."""

    contract: ClassVar[Contract]

    def make_handler(self, name: str, settings: Settings, environment: Mapping[str, str]) -> Handler:
        from triton_diffusers.triton_backend.mailbox import Mailbox

        return Mailbox(name, self.contract, settings, environment)


class JobsModel(Model):
    """The ``jobs`` model."""

    def make_handler(self, name: str, settings: Settings, environment: Mapping[str, str]) -> Handler:
        from triton_diffusers.triton_backend.jobs import JobsHandler

        return JobsHandler(settings)


class TranslatorModel(Model):
    """The ``translator`` model."""

    def make_handler(self, name: str, settings: Settings, environment: Mapping[str, str]) -> Handler:
        from triton_diffusers.triton_backend.translator import TranslatorHandler

        return TranslatorHandler(settings)
