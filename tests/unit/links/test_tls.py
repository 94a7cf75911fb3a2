"""Certificates are checked for the host that a link names."""

from __future__ import annotations

import ssl

import pytest
import trustme

from tests.unit.links.links import FAILED, HOST, Names, Serve, fetched, refused
from tests.unit.links.local_server import drip, ok
from triton_diffusers.errors import InvalidImage
from triton_diffusers.links.fetcher import LinkFetcher
from triton_diffusers.settings import Settings


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a certificate for the names, and a client's that trusts it."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(*names).configure_cert(server)
    authority.configure_trust(client)
    return server, client


def test_a_certificate_is_checked_for_the_links_host(serve: Serve, authority: trustme.CA) -> None:
    """The connection goes to an address, and yet the name is sent and verified."""
    own, trusting = contexts(authority, HOST)
    sent: list[str | None] = []
    own.sni_callback = lambda _, name, __: sent.append(name)
    server = serve(ok(b"an image"), context=own)
    assert fetched(server, scheme="https", context=trusting) == b"an image"
    assert sent == [HOST]


@pytest.mark.parametrize("names", [["other.example"], ["127.0.0.1"], [f"sub.{HOST}"]])
def test_a_certificate_for_another_host_is_refused(serve: Serve, authority: trustme.CA, names: list[str]) -> None:
    own, trusting = contexts(authority, *names)
    server = serve(ok(b"an image"), context=own)
    assert refused(server, scheme="https", context=trusting) == FAILED
    assert server.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused(serve: Serve, authority: trustme.CA) -> None:
    own, _ = contexts(authority, HOST)
    server = serve(ok(b"an image"), context=own)
    # With the authorities that a server really trusts.
    fetcher = LinkFetcher(Settings(link_allow_hosts=HOST), resolver=Names())
    with pytest.raises(InvalidImage, match="no proper answer"):
        fetcher.fetch("image_link", f"https://{HOST}:{server.port}/")
    assert server.requests == []


def test_a_server_without_tls_is_refused(serve: Serve) -> None:
    assert refused(serve(ok(b"an image")), scheme="https") == FAILED


def test_a_slow_body_over_tls_ends(serve: Serve, authority: trustme.CA) -> None:
    own, trusting = contexts(authority, HOST)
    server = serve(drip(b"HTTP/1.1 200 OK\r\n\r\n", b"a"), context=own)
    message = refused(server, scheme="https", context=trusting, link_seconds=0.8)
    assert message == "must be fetched within 0.8 seconds"
