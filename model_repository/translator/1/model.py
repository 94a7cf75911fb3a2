"""Prompts: Chinese to English."""


class TritonPythonModel:
    """Reads the settings, and hands requests to the translator."""

    def initialize(self, args):
        # Imported here, since Triton first loads this file in a process that has none of its utilities.
        from triton_diffusers.settings import Settings
        from triton_diffusers.triton_adapter.logs import log_to_server
        from triton_diffusers.triton_adapter.parameters import settings_of
        from triton_diffusers.triton_adapter.translator import TranslatorModel

        log_to_server()
        self._translator = TranslatorModel(Settings.read(settings_of(args["model_config"])))

    def execute(self, requests):
        return self._translator.execute(requests)
