"""Progress, cancellation and a list of the server's jobs."""

from triton_diffusers.triton_backend.models import JobsModel


class TritonPythonModel(JobsModel):
    """Hands requests to the job board."""
