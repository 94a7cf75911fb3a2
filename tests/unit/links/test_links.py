"""Links, followed to real servers: what is fetched, and what is sent for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.links.links import HOST, NOT_PUBLIC, Names, Serve, fetched, fetcher_of, refusal
from tests.unit.links.local_server import ok, redirect


def test_an_image_is_fetched(serve: Serve) -> None:
    server = serve(ok(b"an image"))
    assert fetched(server, "/a b.png?x=1#part") == b"an image"
    line, *headers = server.requests[0].decode().rstrip().split("\r\n")
    assert line == "GET /a%20b.png?x=1 HTTP/1.1"
    assert sorted(headers) == [
        "Accept-Encoding: identity",
        "Accept: image/*",
        "Connection: close",
        f"Host: {HOST}:{server.port}",
        "User-Agent: triton-diffusers",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nan im\r\n3\r\nage\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nan image",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: Identity\r\n\r\nan image",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8, 8\r\n\r\nan image",
    ],
)
def test_every_proper_form_of_answer_is_read(serve: Serve, answer: bytes) -> None:
    assert fetched(serve(answer)) == b"an image"


def test_the_environments_proxies_and_passwords_are_ignored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, proxy = serve(ok(b"an image")), serve(ok(b"from the proxy"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    (tmp_path / ".netrc").write_text(f"machine {HOST} login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert fetched(server) == b"an image"
    assert proxy.connections == 0
    assert b"uthorization" not in server.requests[0]


def test_cookies_are_not_kept(serve: Serve) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        cookie = "Set-Cookie: id=1; Path=/"
        yield redirect("/b", cookie) if request.startswith(b"GET /a") else ok(b"an image", cookie)

    server = serve(answer)
    fetcher = fetcher_of()
    for _ in range(2):
        assert fetcher.fetch("image_link", f"http://{HOST}:{server.port}/a") == b"an image"
    assert len(server.requests) == 4
    assert not any(b"cookie" in request.lower() for request in server.requests)


def test_many_threads_share_a_fetcher(serve: Serve) -> None:
    server = serve(lambda request: iter([ok(request.split()[1])]))
    fetcher = fetcher_of()
    with ThreadPoolExecutor(8) as pool:
        links = [f"http://{HOST}:{server.port}/{number}" for number in range(40)]
        bodies = list(pool.map(lambda link: fetcher.fetch("image_link", link), links))
    assert bodies == [f"/{number}".encode() for number in range(40)]


def test_an_address_may_be_named_if_it_is_allowed(serve: Serve) -> None:
    server = serve(ok(b"an image"))
    link = f"http://127.0.0.1:{server.port}/"
    names = Names()
    fetcher = fetcher_of(names=names, link_allow_hosts="127.0.0.0/8")
    assert fetcher.fetch("image_link", link) == b"an image"
    assert names.asked == []
    assert refusal(link) == NOT_PUBLIC


def test_ipv6(serve: Serve) -> None:
    try:
        server = serve(ok(b"an image"), address="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    link = f"http://[::1]:{server.port}/"
    assert fetcher_of(link_allow_hosts="::1").fetch("image_link", link) == b"an image"
    assert f"Host: [::1]:{server.port}".encode() in server.requests[0]
    assert refusal(link) == NOT_PUBLIC
