"""Links, followed to real servers: what is fetched, and every way to get around the rules that we could think of."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpcore2
import pytest
import trustme

from tests.unit.fetch.local_server import Answer, LocalServer, ok, redirect
from triton_diffusers.errors import InvalidPicture
from triton_diffusers.fetch import LinkFetcher
from triton_diffusers.fetch.target import IPAddress
from triton_diffusers.settings import Settings

NOT_PUBLIC = "its host must be known and public"
FAILED = "its host must answer with the picture; there was no connection or no proper answer"

# Names that lead to this machine. The operator allows the first alone.
HOST, INTERNAL = "pictures.example", "internal.example"
PUBLIC_ADDRESS = "93.184.216.34"

Serve = Callable[..., LocalServer]

# Trusts nobody. (Loading the system's authorities takes longer than most of these tests.)
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that starts a server on an answer: bytes, or a function from the request to pieces."""
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
    """What is wrong with a link, after its field and itself."""
    with pytest.raises(InvalidPicture) as caught:
        fetcher_of(**options).fetch("mask_link", url)
    message = str(caught.value)
    assert message.startswith("mask_link: ")
    assert len(message) < 300
    return message.partition(" is not accepted; ")[2]


def refused(server: LocalServer, path: str = "/", *, scheme: str = "http", **options: Any) -> str:
    return refusal(f"{scheme}://{HOST}:{server.port}{path}", **options)


# What is fetched, and what is sent for it.


def test_a_picture_is_fetched(serve: Serve) -> None:
    server = serve(ok(b"a picture"))
    assert fetched(server, "/a b.png?x=1#part") == b"a picture"
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
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na pic\r\n4\r\nture\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\na picture",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: Identity\r\n\r\na picture",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9, 9\r\n\r\na picture",
    ],
)
def test_every_proper_form_of_answer_is_read(serve: Serve, answer: bytes) -> None:
    assert fetched(serve(answer)) == b"a picture"


def test_nothing_of_the_environment_has_a_part(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server, proxy = serve(ok(b"a picture")), serve(ok(b"from the proxy"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    (tmp_path / ".netrc").write_text(f"machine {HOST} login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert fetched(server) == b"a picture"
    assert proxy.connections == 0
    assert b"uthorization" not in server.requests[0]


def test_cookies_are_not_kept(serve: Serve) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        cookie = "Set-Cookie: id=1; Path=/"
        yield redirect("/b", cookie) if request.startswith(b"GET /a") else ok(b"a picture", cookie)

    server = serve(answer)
    fetcher = fetcher_of()
    for _ in range(2):
        assert fetcher.fetch("image_link", f"http://{HOST}:{server.port}/a") == b"a picture"
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
    server = serve(ok(b"a picture"))
    link = f"http://127.0.0.1:{server.port}/"
    names = Names()
    fetcher = fetcher_of(names=names, link_allow_hosts="127.0.0.0/8")
    assert fetcher.fetch("image_link", link) == b"a picture"
    assert names.asked == []
    assert refusal(link) == NOT_PUBLIC


def test_ipv6(serve: Serve) -> None:
    try:
        server = serve(ok(b"a picture"), address="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    link = f"http://[::1]:{server.port}/"
    assert fetcher_of(link_allow_hosts="::1").fetch("image_link", link) == b"a picture"
    assert f"Host: [::1]:{server.port}".encode() in server.requests[0]
    assert refusal(link) == NOT_PUBLIC


# Where connections go.


def test_the_connection_goes_to_the_address_that_was_judged(serve: Serve) -> None:
    """DNS rebinding: a second answer of the resolver would be an internal address."""
    server, backend = serve(ok(b"a picture")), Elsewhere()
    names = Names(rebinding_example=[[PUBLIC_ADDRESS], ["127.0.0.1"]])
    fetcher = fetcher_of(names=names, backend=backend)
    assert fetcher.fetch("image_link", f"http://rebinding.example:{server.port}/") == b"a picture"
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
    server = serve(ok(b"a picture"))  # listens on 127.0.0.1 alone
    assert fetched(server, names=Names(pictures_example=[["127.0.0.3", "127.0.0.1"]])) == b"a picture"


def test_each_address_gets_its_share_of_the_time() -> None:
    shares: list[float] = []

    class Silent(httpcore2.SyncBackend):
        def connect_tcp(self, host: str, port: int, timeout: float | None = None, *rest: Any) -> Any:
            assert timeout is not None
            shares.append(timeout)
            time.sleep(timeout)
            raise httpcore2.ConnectTimeout(host)

    names = Names(pictures_example=[["127.0.0.1", "127.0.0.2", "127.0.0.3"]])
    message = refusal(f"http://{HOST}:8000/", names=names, backend=Silent(), link_seconds=0.6)
    assert message == "must be fetched within 0.6 seconds"
    assert len(shares) == 3
    assert all(share < 0.25 for share in shares)


def test_a_closed_port_and_a_broken_answer_look_the_same(serve: Serve) -> None:
    server = serve(b"SSH-2.0-OpenSSH_9.6\r\n")
    closed = serve(b"")
    closed.stop()
    assert refused(server) == refused(closed) == FAILED


def test_links_can_be_turned_off() -> None:
    assert refusal(f"http://{HOST}/", link_schemes="none") == "this server takes no links; send the picture itself"
    assert refusal(f"http://{HOST}/", link_schemes="https") == "must begin with https://"


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(serve: Serve, status: int) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        yield ok(b"a picture") if request.startswith(b"GET /folder/b?x ") else redirect("b?x", status=status)

    assert fetched(serve(answer), "/folder/a") == b"a picture"


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
    with pytest.raises(InvalidPicture) as caught:
        fetched(server, "/a.png?signature=secret")
    assert f"http://{HOST}:{server.port}/a.png" in str(caught.value)
    for hidden in (INTERNAL, "admin", "127.0.0.1", "secret"):
        assert hidden not in str(caught.value)


def test_the_number_of_redirects_is_bounded(serve: Serve) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        left = int(request.split()[1].strip(b"/"))
        yield redirect(f"/{left - 1}") if left else ok(b"a picture")

    server = serve(answer)
    assert fetched(server, "/3", link_redirects=3) == b"a picture"
    assert refused(server, "/4", link_redirects=3) == "at most 3 redirects"
    assert fetched(server, "/0", link_redirects=0) == b"a picture"
    loop = serve(redirect("/"))
    assert refused(loop) == "at most 5 redirects"
    assert len(loop.requests) == 6


# Time.


def drip(first: bytes, rest: bytes, seconds: float = 0.05) -> Answer:
    """Sends ``rest`` over and over, piece by piece, each in good time."""

    def answer(_: bytes) -> Iterator[bytes]:
        yield first
        while True:
            time.sleep(seconds)
            yield rest

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"", b""),
        drip(b"", b"H"),
        drip(b"HTTP/1.1 200 OK\r\n", b"a"),
        drip(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        drip(b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
        drip(b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
    ],
)
def test_whatever_is_slow_ends(serve: Serve, answer: Answer) -> None:
    start = time.monotonic()
    assert refused(serve(answer), link_seconds=0.4) == "must be fetched within 0.4 seconds"
    assert time.monotonic() - start < 5


def test_slow_redirects_have_one_time_together(serve: Serve) -> None:
    def answer(_: bytes) -> Iterator[bytes]:
        time.sleep(0.15)
        yield redirect("/")

    assert refused(serve(answer), link_seconds=0.4, link_redirects=20) == "must be fetched within 0.4 seconds"


def test_a_slow_name_server_ends() -> None:
    def resolver(host: str) -> Sequence[IPAddress]:
        time.sleep(1.5)
        return [ip_address("127.0.0.1")]

    fetcher = LinkFetcher(Settings(link_seconds=0.2), resolver=resolver, ssl_context=TRUSTS_NOBODY)
    start = time.monotonic()
    with pytest.raises(InvalidPicture, match=r"must be fetched within 0\.2 seconds"):
        fetcher.fetch("image_link", f"http://{HOST}/")
    assert time.monotonic() - start < 1.2


@pytest.mark.parametrize("pieces", [[b""], [b"\x16\x03\x03\x40\x00"]])
def test_a_slow_handshake_ends(pieces: list[bytes]) -> None:
    """The server begins a long record of TLS, and sends it byte by byte, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def handshake() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(pieces[0])
                    for _ in range(100):
                        time.sleep(0.05)
                        connection.sendall(b"\x02" if pieces[0] else b"")
                        if connection.recv(65536) == b"":
                            return
                except OSError:
                    return

        pool.submit(handshake)
        start = time.monotonic()
        link = f"https://{HOST}:{listener.getsockname()[1]}/"
        assert refusal(link, link_seconds=0.4) == "must be fetched within 0.4 seconds"
        assert time.monotonic() - start < 4


# Sizes and contents.


def endless(headers: bytes, piece: bytes) -> Answer:
    def answer(_: bytes) -> Iterator[bytes]:
        yield headers
        while True:
            yield piece

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(10_000)),
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", bytes(10_000)),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2710\r\n" + bytes(10_000) + b"\r\n"),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 1000),
    ],
)
def test_an_endless_body_ends_at_the_limit(serve: Serve, answer: Answer) -> None:
    server = serve(answer)
    assert refused(server, max_image_megabytes=0.02) == "at most 0.02 MB"
    server.stop()
    assert server.sent < 30_000_000  # the rest is in the buffers of the connection


def test_the_limit_itself_is_allowed(serve: Serve) -> None:
    assert len(fetched(serve(ok(bytes(20_000))), max_image_megabytes=0.02)) == 20_000
    assert refused(serve(ok(bytes(20_001))), max_image_megabytes=0.02) == "at most 0.02 MB"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_a_compressed_answer_is_refused(serve: Serve, encoding: str) -> None:
    bomb = gzip.compress(bytes(1_000_000))
    server = serve(ok(bomb, f"content-encoding: {encoding}"))
    assert refused(server) == "its host must not compress the answer (Content-Encoding)"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na pic",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\na picture",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000 + b"\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"a picture",
        b"\x00" * 200_000,
    ],
)
def test_a_broken_answer_is_refused(serve: Serve, answer: bytes) -> None:
    assert refused(serve(answer)) == FAILED


def test_what_comes_after_the_stated_length_is_not_read(serve: Serve) -> None:
    assert fetched(serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na picture and more")) == b"a picture"


@pytest.mark.parametrize("status", [201, 204, 206, 300, 301, 304, 401, 403, 404, 407, 500, 503])
def test_only_status_200_has_the_picture(serve: Serve, status: int) -> None:
    server = serve(f"HTTP/1.1 {status} Status\r\nConnection: close\r\n\r\n".encode())
    assert refused(server) == f"its host must answer with status 200, not {status}"


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for the names, and a client's that trusts it."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(*names).configure_cert(server)
    authority.configure_trust(client)
    return server, client


def test_a_certificate_is_checked_for_the_links_host(serve: Serve, authority: trustme.CA) -> None:
    """The connection goes to an address, and yet the name is sent and verified."""
    own, trusting = contexts(authority, HOST)
    sent: list[str | None] = []
    own.sni_callback = lambda _, name, __: sent.append(name)
    server = serve(ok(b"a picture"), context=own)
    assert fetched(server, scheme="https", context=trusting) == b"a picture"
    assert sent == [HOST]


@pytest.mark.parametrize("names", [["other.example"], ["127.0.0.1"], [f"sub.{HOST}"]])
def test_a_certificate_for_another_host_is_refused(serve: Serve, authority: trustme.CA, names: list[str]) -> None:
    own, trusting = contexts(authority, *names)
    server = serve(ok(b"a picture"), context=own)
    assert refused(server, scheme="https", context=trusting) == FAILED
    assert server.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused(serve: Serve, authority: trustme.CA) -> None:
    own, _ = contexts(authority, HOST)
    server = serve(ok(b"a picture"), context=own)
    # With the authorities that a server really trusts.
    fetcher = LinkFetcher(Settings(link_allow_hosts=HOST), resolver=Names())
    with pytest.raises(InvalidPicture, match="no proper answer"):
        fetcher.fetch("image_link", f"https://{HOST}:{server.port}/")
    assert server.requests == []


def test_a_server_without_tls_is_refused(serve: Serve) -> None:
    assert refused(serve(ok(b"a picture")), scheme="https") == FAILED


def test_a_slow_body_over_tls_ends(serve: Serve, authority: trustme.CA) -> None:
    own, trusting = contexts(authority, HOST)
    server = serve(drip(b"HTTP/1.1 200 OK\r\n\r\n", b"a"), context=own)
    start = time.monotonic()
    message = refused(server, scheme="https", context=trusting, link_seconds=0.8)
    assert message == "must be fetched within 0.8 seconds"
    assert time.monotonic() - start < 5
