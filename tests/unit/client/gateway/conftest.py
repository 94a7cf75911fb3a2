"""A gateway that answers by a script, and the client that blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from triton_diffusers_client import (
    Client,
)
from triton_diffusers_client import client as module
from triton_diffusers_client.gateway.driver import Driver

Answer = httpx2.Response | BaseException
BASE = "http://inside:1"


def job(state: str = "queued", **changes: Any) -> dict[str, Any]:
    """Return a job as the gateway shows it."""
    result = None
    if state == "succeeded":
        result = {
            "images": [{"url": f"{BASE}/api/jobs/j/images/0.png?signature=s", "is_nsfw": False}],
            "control_images": [],
            "oss_url": ["file:///a.png"],
            "seed": "7",
            "prompt": "an apple",
            "parameters": {"steps": 2},
            "profile": "exact",
            "use_blade": False,
            "queue_seconds": 0.5,
            "run_seconds": 1.5,
        }
    shown = {
        "id": "j",
        "task_id": "mine",
        "model": "ensemble",
        "state": state,
        "image_num": 1,
        "created": 100.0,
        "ended": None,
        "progress": {"step": 0, "steps": 0, "images_done": 0, "fraction": 0.0},
        "position": None,
        "result": result,
        "error": None,
        "warnings": [],
        "links": {"self": f"{BASE}/api/jobs/j"},
    }
    return shown | changes


def shown(state: str = "queued", status: int = 200, **changes: Any) -> httpx2.Response:
    return httpx2.Response(status, json=job(state, **changes))


def fault(status: int, message: str, headers: dict[str, str] | None = None, **parts: Any) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": message, **parts}}, headers=headers)


class Script:
    """A gateway that answers each request with the next of its answers, and notes the requests and the pauses."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[httpx2.Request] = []
        self.pauses: list[float] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        if not self.answers:
            raise AssertionError(f"nothing is left to answer {request.method} {request.url}")
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    monkeypatch.setattr(module, "Driver", lambda netloc: Driver(netloc, httpx2.MockTransport(made)))
    monkeypatch.setattr("triton_diffusers_client.gateway.driver.time.sleep", made.pauses.append)
    return made


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    with Client("gateway+http://gateway:8080", api_key="secret") as made:
        yield made


def events(*sent: tuple[str, int, dict[str, Any]], broken: bool = False) -> httpx2.Response:
    """Return a stream of events; a broken one ends with an error."""

    def content() -> Iterator[bytes]:
        for kind, number, data in sent:
            yield f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n".encode()
        if broken:
            raise httpx2.ReadError("connection reset")

    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content())


def step(number: int, done: int) -> tuple[str, int, dict[str, Any]]:
    return "progress", number, {"step": done, "steps": 10, "images_done": 0, "at": 101.0}
