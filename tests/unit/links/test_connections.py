"""Where a link's connections go, and every way to lead them elsewhere that we could think of."""

from __future__ import annotations

import time
from typing import Any

import httpcore2
import pytest

from tests.unit.links.links import (
    FAILED,
    HOST,
    INTERNAL,
    NOT_PUBLIC,
    PUBLIC_ADDRESS,
    Elsewhere,
    Names,
    Serve,
    fetched,
    fetcher_of,
    refusal,
    refused,
)
from tests.unit.links.local_server import ok, redirect


def test_the_connection_goes_to_the_address_that_was_judged(serve: Serve) -> None:
    """DNS rebinding: a second answer of the resolver would be an internal address."""
    server, backend = serve(ok(b"an image")), Elsewhere()
    names = Names(rebinding_example=[[PUBLIC_ADDRESS], ["127.0.0.1"]])
    fetcher = fetcher_of(names=names, backend=backend)
    assert fetcher.fetch("image_link", f"http://rebinding.example:{server.port}/") == b"an image"
    assert names.asked == ["rebinding.example"]
    assert backend.connected == [(PUBLIC_ADDRESS, server.port)]
    # The next fetch resolves again, and judges again.
    assert refusal(f"http://rebinding.example:{server.port}/", names=names, backend=backend) == NOT_PUBLIC
    assert len(backend.connected) == 1


def test_a_redirect_to_the_same_host_is_judged_again(serve: Serve) -> None:
    backend = Elsewhere()
    server = serve(redirect("/again"))
    names = Names(rebinding_example=[[PUBLIC_ADDRESS], ["10.0.0.1"]])
    assert refusal(f"http://rebinding.example:{server.port}/", names=names, backend=backend) == NOT_PUBLIC
    assert backend.connected == [(PUBLIC_ADDRESS, server.port)]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["169.254.169.254"],
        ["100.100.100.200"],
        [PUBLIC_ADDRESS, "10.0.0.1"],
        ["2606:4700::1", "fd00::1"],
        [],
    ],
)
def test_no_connection_is_made_to_a_host_with_an_address_that_is_not_public(addresses: list[str]) -> None:
    backend = Elsewhere()
    assert refusal("http://evil.example:8000/", names=Names(evil_example=[addresses]), backend=backend) == NOT_PUBLIC
    assert backend.connected == []


def test_an_unknown_name_and_an_internal_one_look_the_same() -> None:
    messages = {refusal(f"http://{name}:8000/") for name in (INTERNAL, "unknown.example", "127.0.0.1", "[::1]")}
    assert messages == {NOT_PUBLIC}


def test_the_next_address_is_tried_if_one_does_not_answer(serve: Serve) -> None:
    server = serve(ok(b"an image"))  # listens on 127.0.0.1 alone
    assert fetched(server, names=Names(images_example=[["127.0.0.3", "127.0.0.1"]])) == b"an image"


def test_each_address_gets_its_share_of_the_time() -> None:
    shares: list[float] = []

    class Silent(httpcore2.SyncBackend):
        def connect_tcp(self, host: str, port: int, timeout: float | None = None, *rest: Any) -> Any:
            assert timeout is not None
            shares.append(timeout)
            time.sleep(timeout)
            raise httpcore2.ConnectTimeout(host)

    names = Names(images_example=[["127.0.0.1", "127.0.0.2", "127.0.0.3"]])
    message = refusal(f"http://{HOST}:8000/", names=names, backend=Silent(), link_seconds=2.4)
    assert message == "must be fetched within 2.4 seconds"
    assert len(shares) == 3
    assert all(share <= 0.8 for share in shares)


def test_a_closed_port_and_a_broken_answer_look_the_same(serve: Serve) -> None:
    server = serve(b"SSH-2.0-OpenSSH_9.6\r\n")
    closed = serve(b"")
    closed.stop()
    assert refused(server) == refused(closed) == FAILED


def test_links_can_be_turned_off() -> None:
    assert refusal(f"http://{HOST}/", link_schemes="none") == "this server takes no links; send the image itself"
    assert refusal(f"http://{HOST}/", link_schemes="https") == "must begin with https://"
