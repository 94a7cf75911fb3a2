"""Stable Diffusion: text to image."""


class TritonPythonModel:
    """Reads the settings, and hands requests to the mailbox."""

    def initialize(self, args):
        # Imported here, since Triton first loads this file in a process that has none of its utilities (to complete
        # the config), which is over sooner without PyTorch.
        from triton_diffusers.settings import Settings
        from triton_diffusers.triton_adapter.logs import log_to_server
        from triton_diffusers.triton_adapter.mailbox import Mailbox
        from triton_diffusers.triton_adapter.parameters import settings_of

        log_to_server()
        self._mailbox = Mailbox(args["model_name"], Settings.read(settings_of(args["model_config"])))

    def execute(self, requests):
        return self._mailbox.execute(requests)

    def finalize(self):
        self._mailbox.close()
