"""Progress, cancellation and a list of the server's jobs."""

from triton_diffusers.settings import Settings
from triton_diffusers.triton_adapter.jobs import JobsModel
from triton_diffusers.triton_adapter.parameters import settings_of


class TritonPythonModel:
    """Hands requests to the job board."""

    def initialize(self, args):
        self._jobs = JobsModel(Settings.read(settings_of(args["model_config"])))

    def execute(self, requests):
        return self._jobs.execute(requests)

    def finalize(self):
        self._jobs.close()
