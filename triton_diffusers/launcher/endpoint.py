"""Triton's interfaces as far as the launcher needs them. Every call has its own connection, so all are thread-safe."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from triton_diffusers.util.hosts import url_host

_UNREACHABLE = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")
# A proxy from the environment must not come between the launcher and its own server.
_NO_PROXY = [("grpc.enable_http_proxy", 0)]
# Header that callers of a restricted interface send; as gRPC metadata it has Triton's prefix.
CONTROL_HEADER = "triton-diffusers-key"
_GRPC_CONTROL_HEADER = f"triton-grpc-protocol-{CONTROL_HEADER}"
_QUICK = 5.0  # seconds; for calls that Triton answers itself


class TritonRefused(Exception):
    """Triton answered a control call with an error; the message is Triton's."""


@dataclass(frozen=True)
class TritonEndpoint:
    """Addresses of a server's interfaces. All calls raise ``OSError`` if nobody answers there in time.

    ``control_key`` opens the interfaces that are restricted.
    """

    host: str
    http_port: int
    grpc_port: int
    control_key: str

    def is_ready(self) -> bool:
        """Return True if all models are loaded, False as well if nobody answers."""
        try:
            return self._call("GET", "/v2/health/ready", timeout=_QUICK)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def is_model_ready(self, model: str) -> bool:
        """Return True if Triton would run the model, which it says of one whose process is dead, too."""
        return self._call("GET", f"/v2/models/{quote(model)}/ready", timeout=_QUICK)[0] == 200

    def load(self, model: str, *, timeout: float) -> None:
        """Load a model and wait until it is loaded, ``timeout`` seconds at most. Raises TritonRefused."""
        with self._control() as control:
            control.load_model(model, headers=self._key, client_timeout=timeout)

    def unload(self, model: str) -> None:
        """Ask for a model to be unloaded; its requests in flight are finished first. Raises TritonRefused."""
        with self._control() as control:
            control.unload_model(model, headers=self._key, client_timeout=_QUICK)

    def progress(self, model: str) -> tuple[int, ...]:
        """Return counts that change while a model works: runs of ``execute``, answers, failures."""
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
        """Return a new HTTP connection whose operations may take ``timeout`` seconds each."""
        # http.client rather than urllib: see _NO_PROXY.
        return http.client.HTTPConnection(self.host, self.http_port, timeout=timeout)

    @property
    def _key(self) -> dict[str, str]:
        return {_GRPC_CONTROL_HEADER: self.control_key}

    @contextlib.contextmanager
    def _control(self) -> Iterator[tritonclient.grpc.InferenceServerClient]:
        # gRPC, because an HTTP worker of Triton's that loads a model answers nothing else meanwhile: every caller
        # whose open connection it holds (one in eight) would wait for the load to end.
        try:
            with tritonclient.grpc.InferenceServerClient(
                f"{url_host(self.host)}:{self.grpc_port}", channel_args=_NO_PROXY
            ) as client:
                yield client
        except InferenceServerException as error:
            message = " ".join(str(error.message()).split())
            if error.status() in _UNREACHABLE:
                raise ConnectionError(message) from error
            raise TritonRefused(message) from error

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
    """Return the message in one of Triton's error replies, or the reply itself, on one line."""
    try:
        message = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        message = body
    return " ".join(str(message).split())
