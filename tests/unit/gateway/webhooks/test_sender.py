"""One delivery: which hosts are called, and what their answers mean."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.unit.gateway.webhooks.receiver import Receiver, receiving
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.webhooks.sender import Outcome, WebhookSender
from triton_diffusers.links.client import GuardedClient
from triton_diffusers.settings import Settings

NOT_PUBLIC = "its host must be known and public"
NAMES = {"hooks.example": "127.0.0.1", "rebound.example": "127.0.0.1"}


def sender(seconds: float = 30.0, schemes: str = "http,https", allowed: str = "127.0.0.1") -> WebhookSender:
    settings = Settings(link_allow_hosts=allowed, link_schemes=schemes)
    return WebhookSender(GuardedClient(settings, resolver=lambda host: [ip_address(NAMES[host])]), seconds)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


def test_a_message_arrives_as_it_was_sent(receiver: Receiver) -> None:
    outcome = sender().send(receiver.url("/a?b=c", "hooks.example"), {"webhook-id": "1"}, b"{}")
    assert outcome == Outcome(status=204)
    (message,) = receiver.messages
    assert (message.path, message.id, message.body) == ("/a?b=c", "1", b"{}")
    assert message.headers["content-type"] == "application/json"
    assert message.headers["host"] == f"hooks.example:{receiver.port}"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_another_status_than_success_is_an_error(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda message: (status, {})
    assert sender().send(receiver.url(), {}, b"{}") == Outcome(status=status, error=f"status {status}")


def test_a_receiver_that_is_gone_wants_no_more(receiver: Receiver) -> None:
    receiver.answer = lambda message: (410, {})
    assert sender().send(receiver.url(), {}, b"{}").gone


def test_a_receiver_may_ask_for_a_pause(receiver: Receiver) -> None:
    receiver.answer = lambda message: (429, {"Retry-After": "120"})
    assert sender().send(receiver.url(), {}, b"{}").retry_after == 120.0
    receiver.answer = lambda message: (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    assert sender().send(receiver.url(), {}, b"{}").retry_after == 0.0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda message: (status, {"Location": receiver.url("/elsewhere")})
    outcome = sender().send(receiver.url(), {}, b"{}")
    assert outcome == Outcome(status=status, error=f"status {status}: redirects are not followed")
    assert [message.path for message in receiver.messages] == ["/hook"]


def test_a_receiver_that_does_not_answer_in_time_is_left(receiver: Receiver) -> None:
    released = threading.Event()

    def late(message: object) -> tuple[int, dict[str, str]]:
        released.wait(60)
        return 204, {}

    receiver.answer = late
    try:
        assert sender(seconds=0.3).send(receiver.url(), {}, b"{}") == Outcome(error="no answer within 0.3 seconds")
    finally:
        released.set()


def test_a_closed_port_and_no_http_are_errors() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        expected = Outcome(error="no connection, or no proper answer")
        assert sender().send(f"http://127.0.0.1:{port}/", {}, b"{}") == expected
        thread.join()
    assert sender().send(f"http://127.0.0.1:{port}/", {}, b"{}") == expected


def test_only_the_beginning_of_an_endless_answer_is_read() -> None:
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            nonlocal sent
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
                try:
                    while True:
                        sent += connection.send(b"x" * 65536)
                except OSError:  # it has hung up
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        assert sender().send(f"http://127.0.0.1:{server.getsockname()[1]}/", {}, b"{}") == Outcome(status=200)
        thread.join()
    assert sent < 100_000_000


def test_private_addresses_are_not_called(receiver: Receiver) -> None:
    refusing = sender(allowed="")
    assert refusing.send(receiver.url(host="rebound.example"), {}, b"{}") == Outcome(error=NOT_PUBLIC)
    assert refusing.send(receiver.url(), {}, b"{}") == Outcome(error=NOT_PUBLIC)
    assert not receiver.messages


def test_urls_are_checked_when_they_come() -> None:
    assert sender().target_of("https://hooks.example/x").host_name == "hooks.example"
    for url, rule in {
        "ftp://hooks.example/": "must begin with http:// or https://",
        "https://user:word@hooks.example/": "must have no user name and no password",
        "https://hooks.example:22/": "its port must be 80, 443 or at least 1024",
        "http://169.254.169.254/latest": NOT_PUBLIC,
        "http://[::1]/": NOT_PUBLIC,
    }.items():
        with pytest.raises(InvalidRequest, match=r"^webhook\.url: ") as caught:
            sender(allowed="").target_of(url)
        assert caught.value.rule == rule
    with pytest.raises(InvalidRequest, match="this server calls no webhooks"):
        sender(schemes="none").target_of("https://hooks.example/")
