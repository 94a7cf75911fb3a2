"""Messages between the models' processes (clients) and an engine process (server)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from triton_diffusers.api.request import GenerationRequest, GenerationResult, ModelDefaults
from triton_diffusers.errors import TritonDiffusersError

# Key of a metric family in the adapter's table, and its labels.
MetricKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a client: the model that it serves, its process and the time when that began."""

    model: str
    pid: int
    born: float


@dataclass(frozen=True, slots=True)
class Watch:
    """First message of the supervisor."""


@dataclass(frozen=True, slots=True)
class Submit:
    """A request. ``arrived`` is in seconds since the epoch, ``with_images``: the result's images are wanted.

    ``is_suspect``: an engine process died while it had this request, so it runs alone.
    """

    job_id: str
    model: str
    request: GenerationRequest
    arrived: float
    with_images: bool
    is_suspect: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a request at its next step."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Question of the supervisor, answered by ``Pong``."""


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to ``Ping``."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is loaded."""

    defaults: ModelDefaults


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine cannot be loaded; its process ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Started:
    """Work on a request has begun. If the process dies before that, the request is not a suspect."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A request's result."""

    job_id: str
    result: GenerationResult


@dataclass(frozen=True, slots=True)
class Failed:
    """A request's error."""

    job_id: str
    error: TritonDiffusersError


@dataclass(frozen=True, slots=True)
class Metrics:
    """Changes of metrics since the last message: amounts to add to counters, and values of gauges."""

    added: Mapping[MetricKey, float]
    values: Mapping[MetricKey, float]


Message = Hello | Watch | Submit | Cancel | Ping | Pong | Ready | LoadFailed | Started | Succeeded | Failed | Metrics
