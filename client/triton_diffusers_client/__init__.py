"""Client of Triton Diffusers: text to image by a gateway, or by a Triton. Begin with ``Client`` or ``AsyncClient``."""

from triton_diffusers_client.address import Interface
from triton_diffusers_client.async_client import AsyncClient
from triton_diffusers_client.client import Client
from triton_diffusers_client.errors import (
    BusyError,
    CancelledError,
    ClientError,
    ConnectionFailedError,
    InvalidRequestError,
    NotAuthorizedError,
    NotFoundError,
    NotSupportedError,
    RequestTimeoutError,
    ServerError,
    ServerRestartingError,
    UnreachableError,
    WrongProtocolError,
)
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.image import EncodedImage, Image
from triton_diffusers_client.job import AsyncJob, Job
from triton_diffusers_client.options import Options
from triton_diffusers_client.progress import JobState, Progress

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "BusyError",
    "CancelledError",
    "Client",
    "ClientError",
    "ConnectionFailedError",
    "EncodedImage",
    "Generation",
    "Image",
    "Interface",
    "InvalidRequestError",
    "Job",
    "JobState",
    "NotAuthorizedError",
    "NotFoundError",
    "NotSupportedError",
    "Options",
    "Progress",
    "RequestTimeoutError",
    "ServerError",
    "ServerRestartingError",
    "UnreachableError",
    "WrongProtocolError",
]
