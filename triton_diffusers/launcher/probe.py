"""Probe: a tiny request through Triton and a model's process, which shows that both are alive."""

from __future__ import annotations

import enum
import http.client
import json
import re
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from triton_diffusers.launcher.endpoint import TritonEndpoint, error_text

_UNHEALTHY = re.compile(r"stub process.*not healthy", re.IGNORECASE)
_UNLOADED = re.compile(r"unknown model|is not ready|not at ready state", re.IGNORECASE)


class Health(enum.Enum):
    """State of a model according to a probe's answer."""

    WELL = "well"
    DEAD = "dead"
    UNLOADED = "unloaded"
    REFUSED = "refused"  # alive: somebody read the probe and did not like it


@dataclass(frozen=True)
class Answer:
    """A probe's answer: the HTTP status, and Triton's words if it is an error."""

    status: int
    text: str

    @property
    def health(self) -> Health:
        """State of the model; the only place where Triton's messages are interpreted."""
        if self.status == 200:
            return Health.WELL
        if _UNHEALTHY.search(self.text):
            return Health.DEAD
        if _UNLOADED.search(self.text):
            return Health.UNLOADED
        return Health.REFUSED


class Probe:
    """One probe in flight.

    Wait for it again instead of sending another one: Triton does not notice that a client has gone, so abandoned probes
    would add to the load of a busy model.
    """

    def __init__(self, endpoint: TritonEndpoint, model: str, body: Mapping[str, Any]) -> None:
        """Send it. Raises ``OSError`` without a server."""
        self._connection = endpoint.connect(timeout=5.0)
        self._connection.request("POST", f"/v2/models/{quote(model)}/generate", json.dumps(body))
        self._sent = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since it was sent."""
        return time.monotonic() - self._sent

    def wait(self, seconds: float) -> Answer | None:
        """Return the answer, or None if there is none within ``seconds``. Raises OSError if the server went away."""
        if not select.select([self._connection.sock], [], [], seconds)[0]:
            return None
        try:
            response = self._connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        finally:
            self.close()
        return Answer(response.status, "" if response.status == 200 else error_text(text))

    def close(self) -> None:
        """Stop waiting for the answer."""
        self._connection.close()
