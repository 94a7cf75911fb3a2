"""Stable Diffusion: text to image."""

from triton_diffusers.engines import ENGINES
from triton_diffusers.loading import load_components
from triton_diffusers.settings import Settings
from triton_diffusers.triton_adapter.mailbox import Mailbox
from triton_diffusers.triton_adapter.parameters import settings_of


class TritonPythonModel:
    """Reads the settings, builds the engine, and hands requests to the mailbox."""

    def initialize(self, args):
        settings = Settings.read(settings_of(args["model_config"]))
        engine = ENGINES[settings.engine](load_components(settings))
        self._mailbox = Mailbox(args["model_name"], engine, settings)

    def execute(self, requests):
        return self._mailbox.execute(requests)

    def finalize(self):
        self._mailbox.close()
