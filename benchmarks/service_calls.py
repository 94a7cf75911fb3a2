"""Clients of a gateway that may be down: each request is repeated, under one key, until it is answered."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_CALL_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
_WAIT_SECONDS = 10
_AWAY = (429, 500, 502, 503, 504)  # statuses after which the same request is sent again
_ENDED = ("succeeded", "failed", "cancelled", "expired", "dead")


class RequestFailed(RuntimeError):
    """A request was answered with an error, or not at all in time."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A request for one image. Its prompt is its own, so that its job can be found by it."""

    owner: str
    dialect: str
    prompt: str
    seed: int
    steps: int
    side: int


class GatewayClient:
    """Calls one gateway; ``keys`` are the API keys of owners, if it has users. May be used by several threads."""

    def __init__(self, url: str, seconds: float, keys: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._seconds = seconds
        self._keys = keys or {}

    def image(self, wish: Wish) -> str:
        """Return the hash of the image that was asked for. Raises ``RequestFailed``."""
        return hashlib.sha256(_DIALECTS[wish.dialect](self, wish)).hexdigest()

    def submit(self, wish: Wish) -> str:
        """Queue a job by the native dialect, and return its id."""
        fields = {"width": wish.side, "height": wish.side, "task_id": wish.owner}
        return str(self.post(wish, "/api/jobs", fields)["id"])

    def wait_until_ready(self) -> None:
        """Return as soon as the gateway takes jobs."""
        self._persistently("GET", "/health/ready", None, {})

    def post(self, wish: Wish, path: str, fields: Mapping[str, Any]) -> Any:
        """Send a request as JSON and return its answer."""
        small = {"prompt": wish.prompt, "steps": wish.steps, "seed": str(wish.seed)}
        return json.loads(self._persistently("POST", path, small | dict(fields), self._headers(wish)))

    def get(self, wish: Wish, path: str) -> bytes:
        """Return what is at a path or a URL of the gateway."""
        return self._persistently("GET", path.removeprefix(self._url), None, self._headers(wish))

    def _headers(self, wish: Wish) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": wish.prompt}
        if key := self._keys.get(wish.owner):
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _persistently(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        give_up = time.monotonic() + self._seconds
        while True:
            request = urllib.request.Request(self._url + path, data, dict(headers), method=method)
            try:
                with contextlib.closing(urllib.request.urlopen(request, timeout=_CALL_SECONDS)) as reply:
                    return bytes(reply.read())
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.read()[:500]!r}"
                if error.code not in _AWAY or time.monotonic() > give_up:
                    raise RequestFailed(f"{wish_name(headers)}{path}: {reason}") from error
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > give_up:
                    raise RequestFailed(f"{wish_name(headers)}{path}: {error!r}") from error
            time.sleep(_PAUSE_SECONDS)


def wish_name(headers: Mapping[str, str]) -> str:
    """Return the words that name a request in an error."""
    return f"{headers.get('Idempotency-Key', '')} "


def _native(client: GatewayClient, wish: Wish) -> bytes:
    fields = {"width": wish.side, "height": wish.side, "task_id": wish.owner}
    job = client.post(wish, "/api/jobs", fields)
    while job["state"] not in _ENDED:
        job = json.loads(client.get(wish, f"/api/jobs/{job['id']}?wait={_WAIT_SECONDS}"))
    if job["state"] != "succeeded":
        raise RequestFailed(f"{wish.prompt}: {job['state']}: {job['error']}")
    return client.get(wish, job["result"]["images"][0]["url"])


def _reference(client: GatewayClient, wish: Wish) -> bytes:
    fields = {"width": wish.side, "height": wish.side, "task_id": wish.owner}
    reply = client.post(wish, "/api/predict/emoji", fields)
    return client.get(wish, reply["image_url"][0])


def _openai(client: GatewayClient, wish: Wish) -> bytes:
    fields = {"size": f"{wish.side}x{wish.side}", "user": wish.owner, "response_format": "b64_json"}
    reply = client.post(wish, "/v1/images/generations", fields)
    return base64.b64decode(reply["data"][0]["b64_json"])


_DIALECTS: Mapping[str, Callable[[GatewayClient, Wish], bytes]] = {
    "native": _native,
    "reference": _reference,
    "openai": _openai,
}
DIALECTS = tuple(_DIALECTS)
