"""Redirects are judged like the links that they come from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.links.links import HOST, INTERNAL, NOT_PUBLIC, Serve, fetched, refused
from tests.unit.links.local_server import ok, redirect
from triton_diffusers.errors import InvalidImage


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(serve: Serve, status: int) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        yield ok(b"an image") if request.startswith(b"GET /folder/b?x ") else redirect("b?x", status=status)

    assert fetched(serve(answer), "/folder/a") == b"an image"


@pytest.mark.parametrize(
    ("location", "limit"),
    [
        ("http://{internal}:{port}/", NOT_PUBLIC),
        ("//{internal}:{port}/", NOT_PUBLIC),
        ("http://127.0.0.1:{port}/", NOT_PUBLIC),
        ("http://[::1]:{port}/", NOT_PUBLIC),
        ("http://[::ffff:127.0.0.1]:{port}/", NOT_PUBLIC),
        ("http://169.254.169.254/latest/meta-data/", NOT_PUBLIC),
        ("http://2130706433:{port}/", "an address must be written in its usual form"),
        ("http://user:password@{host}:{port}/", "must have no user name and no password"),
        ("http://{host}:22/", "its port must be 80, 443 or at least 1024"),
        ("file:///etc/passwd", "must begin with http:// or https://"),
        ("ftp://{host}/a.png", "must begin with http:// or https://"),
        ("data:image/png;base64,QUJD", "must begin with http:// or https://"),
        ("http://[::1", "a redirect must lead to a URL"),
        ("http://exämple.com/", "its host must be a name in ASCII (xn--… for others) or an address"),
    ],
)
def test_a_redirect_is_judged_like_a_link(serve: Serve, location: str, limit: str) -> None:
    secret = serve(ok(b"secret"))
    server = serve(redirect(location.format(internal=INTERNAL, host=HOST, port=secret.port)))
    assert refused(server) == limit
    assert secret.connections == 0


def test_an_error_shows_the_link_that_was_sent_and_not_where_it_led(serve: Serve) -> None:
    server = serve(redirect(f"http://{INTERNAL}/admin"))
    with pytest.raises(InvalidImage) as caught:
        fetched(server, "/a.png?signature=secret")
    assert f"http://{HOST}:{server.port}/a.png" in str(caught.value)
    for hidden in (INTERNAL, "admin", "127.0.0.1", "secret"):
        assert hidden not in str(caught.value)


def test_the_number_of_redirects_is_bounded(serve: Serve) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        left = int(request.split()[1].strip(b"/"))
        yield redirect(f"/{left - 1}") if left else ok(b"an image")

    server = serve(answer)
    assert fetched(server, "/3", link_redirects=3) == b"an image"
    assert refused(server, "/4", link_redirects=3) == "at most 3 redirects"
    assert fetched(server, "/0", link_redirects=0) == b"an image"
    loop = serve(redirect("/"))
    assert refused(loop) == "at most 5 redirects"
    assert len(loop.requests) == 6
