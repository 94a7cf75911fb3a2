"""Triton's HTTP interface, as much of it as the launcher needs. Every call has its own connection: thread-safe."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

_QUICK = 5.0  # seconds; for calls that Triton answers itself


class TritonRefused(Exception):
    """Triton answered a control call with an error; the message is Triton's."""


@dataclass(frozen=True)
class TritonEndpoint:
    """Where a server's HTTP interface is. All calls raise ``OSError`` if nobody answers there in time."""

    host: str
    port: int

    def is_ready(self) -> bool:
        """Whether all models are loaded. False as well if nobody answers."""
        try:
            return self._call("GET", "/v2/health/ready", timeout=_QUICK)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def is_model_ready(self, model: str) -> bool:
        """Whether Triton says that it would run the model; it says so of a model whose process is dead, too."""
        return self._call("GET", f"/v2/models/{quote(model)}/ready", timeout=_QUICK)[0] == 200

    def load(self, model: str, *, timeout: float) -> None:
        """Load a model and wait until it is loaded, ``timeout`` seconds at most. Raises TritonRefused."""
        self._control(model, "load", timeout)

    def unload(self, model: str) -> None:
        """Ask for a model to be unloaded; its requests in flight are finished first. Raises TritonRefused."""
        self._control(model, "unload", _QUICK)

    def progress(self, model: str) -> tuple[int, ...]:
        """Counts that change while a model does anything: runs of ``execute``, answers, failures."""
        status, text = self._call("GET", f"/v2/models/{quote(model)}/stats", timeout=_QUICK)
        if status != 200:
            raise TritonRefused(error_text(text))
        counts: list[int] = []
        for version in json.loads(text)["model_stats"]:
            outcomes = version["inference_stats"]
            counts += [version.get("execution_count", 0), version.get("inference_count", 0)]
            counts += [outcomes.get(kind, {}).get("count", 0) for kind in ("success", "fail")]
        return tuple(counts)

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """A new connection whose operations may take ``timeout`` seconds each."""
        # http.client and not urllib: a proxy from the environment has no business between us and our own server.
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def _control(self, model: str, action: str, timeout: float) -> None:
        status, text = self._call("POST", f"/v2/repository/models/{quote(model)}/{action}", {}, timeout=timeout)
        if status != 200:
            raise TritonRefused(error_text(text))

    def _call(self, method: str, path: str, body: Any = None, *, timeout: float) -> tuple[int, str]:
        connection = self.connect(timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:  # the server went away in the middle of an answer
            raise ConnectionError(str(error) or type(error).__name__) from error
        finally:
            connection.close()


def error_text(body: str) -> str:
    """The message in one of Triton's error replies, or the reply itself, on one line."""
    try:
        message = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        message = body
    return " ".join(str(message).split())
