"""Progress, cancellation and a list of the server's jobs."""


class TritonPythonModel:
    """Hands requests to the job board."""

    def initialize(self, args):
        # Imported here, since Triton first loads this file in a process that has none of its utilities.
        from triton_diffusers.settings import Settings
        from triton_diffusers.triton_adapter.jobs import JobsModel
        from triton_diffusers.triton_adapter.parameters import settings_of

        self._jobs = JobsModel(Settings.read(settings_of(args["model_config"])))

    def execute(self, requests):
        return self._jobs.execute(requests)

    def finalize(self):
        self._jobs.close()
