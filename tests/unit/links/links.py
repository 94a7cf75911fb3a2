"""Fetching from servers on this machine, and what is said of a link that is refused."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import httpcore2
import pytest

from tests.unit.links.local_server import LocalServer
from triton_diffusers.errors import InvalidImage
from triton_diffusers.links.fetcher import LinkFetcher
from triton_diffusers.links.url import IPAddress
from triton_diffusers.settings import Settings

NOT_PUBLIC = "its host must be known and public"
FAILED = "its host must answer with the image; there was no connection or no proper answer"

# Names that lead to this machine. The operator allows the first alone.
HOST, INTERNAL = "images.example", "internal.example"
PUBLIC_ADDRESS = "93.184.216.34"

Serve = Callable[..., LocalServer]

# Trusts nobody. (Loading the system's authorities takes longer than most of these tests.)
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Names:
    """A resolver that knows some names, and counts how often it is asked. Each asking may get another answer."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {HOST: [["127.0.0.1"]], INTERNAL: [["127.0.0.1"]]} | {
            name.replace("_", "."): list(answer) for name, answer in answers.items()
        }
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[IPAddress]:
        self.asked.append(host)
        if host not in self._answers:
            raise socket.gaierror("not known")
        answers = self._answers[host]
        return [ip_address(text) for text in answers[min(self.asked.count(host), len(answers)) - 1]]


class Elsewhere(httpcore2.SyncBackend):
    """Notes where connections go, and makes them to this machine instead."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, int]] = []

    def connect_tcp(self, host: str, port: int, *rest: Any, **options: Any) -> httpcore2.NetworkStream:
        self.connected.append((host, port))
        return super().connect_tcp("127.0.0.1", port, *rest, **options)


def fetcher_of(*, names: Names | None = None, backend: Any = None, context: Any = None, **settings: Any) -> LinkFetcher:
    settings = {"link_allow_hosts": HOST, "link_seconds": 20.0, **settings}
    return LinkFetcher(
        Settings(**settings), resolver=names or Names(), backend=backend, ssl_context=context or TRUSTS_NOBODY
    )


def fetched(server: LocalServer, path: str = "/", *, scheme: str = "http", **options: Any) -> bytes:
    return fetcher_of(**options).fetch("image_link", f"{scheme}://{HOST}:{server.port}{path}")


def refusal(url: str, **options: Any) -> str:
    """Return the reason why a link is refused."""
    with pytest.raises(InvalidImage) as caught:
        fetcher_of(**options).fetch("mask_link", url)
    message = str(caught.value)
    assert message.startswith("mask_link: ")
    assert len(message) < 300
    return message.partition(" is invalid: ")[2]


def refused(server: LocalServer, path: str = "/", *, scheme: str = "http", **options: Any) -> str:
    return refusal(f"{scheme}://{HOST}:{server.port}{path}", **options)
