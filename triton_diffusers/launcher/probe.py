"""The tiny inference that shows a model to be alive: it passes through Triton and the model process, and back."""

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

from triton_diffusers.api.contract import LOOP_HAS_ENDED
from triton_diffusers.launcher.endpoint import TritonEndpoint, error_text

_UNHEALTHY = re.compile(rf"stub process.*not healthy|{re.escape(LOOP_HAS_ENDED)}", re.IGNORECASE)
_UNLOADED = re.compile(r"unknown model|is not ready|not at ready state", re.IGNORECASE)


class Health(enum.Enum):
    """What a probe's answer says of its model."""

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
        """The one place where Triton's messages, and our models' own, are interpreted."""
        if self.status == 200:
            return Health.WELL
        if _UNHEALTHY.search(self.text):
            return Health.DEAD
        if _UNLOADED.search(self.text):
            return Health.UNLOADED
        return Health.REFUSED


class Probe:
    """One probe under way.

    It is waited for again and again rather than sent again: Triton does not notice that a client has gone, so probes
    given up by a crowded model would only add to the crowd.
    """

    def __init__(self, endpoint: TritonEndpoint, model: str, body: Mapping[str, Any]) -> None:
        """Send it. Raises OSError if there is no server."""
        self._connection = endpoint.connect(timeout=5.0)
        self._connection.request("POST", f"/v2/models/{quote(model)}/generate", json.dumps(body))
        self._sent = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since it was sent."""
        return time.monotonic() - self._sent

    def wait(self, seconds: float) -> Answer | None:
        """The answer, or None if there is none within ``seconds``. Raises OSError if the server went away."""
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
