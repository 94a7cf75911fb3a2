"""Servers for links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.links.links import Serve
from tests.unit.links.local_server import Answer, LocalServer


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that starts a server on an answer: bytes, or a function from the request to pieces."""
    servers: list[LocalServer] = []

    def start(answer: Answer | bytes, **options: Any) -> LocalServer:
        server = LocalServer((lambda _: iter([answer])) if isinstance(answer, bytes) else answer, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stopping.set()
    for server in servers:
        server.stop()
