"""What the ``model.py`` files of the generating models have in common.

Imports nothing of weight before ``initialize``: Triton first loads the file in a process that has none of its utilities
(to complete the config), which is over sooner without PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from triton_diffusers.contract import Contract


class GeneratingModel:
    """Reads the settings, and hands requests to the mailbox."""

    contract: ClassVar[Contract]

    def initialize(self, args: Mapping[str, str]) -> None:
        """``args`` are Triton's."""
        from triton_diffusers.settings import Settings
        from triton_diffusers.triton_adapter.logs import log_to_server
        from triton_diffusers.triton_adapter.mailbox import Mailbox
        from triton_diffusers.triton_adapter.parameters import settings_of

        log_to_server()
        settings = Settings.read(settings_of(args["model_config"]))
        self._mailbox = Mailbox(args["model_name"], self.contract, settings)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each of Triton's requests, or None for one that is to come back."""
        return self._mailbox.execute(requests)

    def finalize(self) -> None:
        """The model is unloaded."""
        self._mailbox.close()
