"""What Triton calls: the base classes of the ``model.py`` files.

Imports nothing of weight before ``initialize``: Triton first loads the file in a process that has none of its utilities
(to complete the config), which is over sooner without PyTorch.
"""

from __future__ import annotations

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


class Handler(Protocol):
    """Answers the requests of a model."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each of Triton's requests, or None for one that is to come back."""

    def close(self) -> None:
        """Give back what is held."""


class Model(ABC):
    """Reads the settings, and hands requests to a handler."""

    @abstractmethod
    def make_handler(self, name: str, settings: Settings) -> Handler:
        """The handler of the model's requests; ``name`` is what the model is called in the repository."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """``args`` are Triton's."""
        use_utf8()  # before any name is read
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
        from triton_diffusers.settings import Settings
        from triton_diffusers.triton_backend.logs import log_to_server
        from triton_diffusers.triton_backend.parameters import settings_of

        log_to_server(args["model_name"])
        self._handler = self.make_handler(args["model_name"], Settings.read(settings_of(args["model_config"])))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each of Triton's requests, or None for one that is to come back."""
        return self._handler.execute(requests)

    def finalize(self) -> None:
        """The model is unloaded."""
        self._handler.close()


def _end_with(server: int) -> None:
    """End this process when the server, its parent, has ended: the stub's own exit waits for ever with jobs in flight.

    The kernel's death signal will not do: it comes when the server's *thread* ends that has started this process.
    """
    while os.getppid() == server:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


class GeneratingModel(Model):
    """Makes images."""

    contract: ClassVar[Contract]

    def make_handler(self, name: str, settings: Settings) -> Handler:
        from triton_diffusers.optimize.choice import EngineChoice

        choice = EngineChoice(settings)
        choice.begin()

        from triton_diffusers.triton_backend.mailbox import Mailbox  # seconds, in which graphs are loaded

        return Mailbox(name, self.contract, settings, choice)


class JobsModel(Model):
    """Tells about jobs."""

    def make_handler(self, name: str, settings: Settings) -> Handler:
        from triton_diffusers.triton_backend.jobs import JobsHandler

        return JobsHandler(settings)


class TranslatorModel(Model):
    """Translates prompts."""

    def make_handler(self, name: str, settings: Settings) -> Handler:
        from triton_diffusers.triton_backend.translator import TranslatorHandler

        return TranslatorHandler(settings)
