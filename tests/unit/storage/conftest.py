"""An OSS of the tests, and the store on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.oss_server import OssServer
from triton_diffusers.settings import Settings
from triton_diffusers.storage import ResultStore, open_store

BUCKET = "a-bucket"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses between attempts, which are not waited for."""
    waited: list[float] = []
    real = time.sleep

    def sleep(seconds: float) -> None:
        waited.append(seconds) if seconds > 0 else real(0)

    monkeypatch.setattr("triton_diffusers.storage.attempts.time", type("Time", (), {"sleep": staticmethod(sleep)}))
    return waited


@pytest.fixture
def server() -> Iterator[OssServer]:
    with OssServer() as server:
        server.buckets[BUCKET] = {}
        yield server


@pytest.fixture
def opened(server: OssServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ResultStore]:
    """Return a function that opens the store; keywords are settings."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)

    def opened(**settings: Any) -> ResultStore:
        given = {"store": f"oss://{BUCKET}/images/v1/", "oss_region": "hangzhou", "oss_endpoint": server.endpoint}
        store = open_store(Settings(**{**given, "oss_seconds": 5.0, **settings}))
        assert store is not None
        return store

    return opened
