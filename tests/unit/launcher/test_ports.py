"""Ports are checked before Triton starts, and what is wrong with one is said in a line."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from triton_diffusers.launcher.errors import BadOption, PortUnavailable
from triton_diffusers.launcher.ports import choose_ports
from triton_diffusers.util.hosts import reachable_host, url_host


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_zeros_become_free_ports_that_differ() -> None:
    ports = choose_ports("127.0.0.1", http=0, grpc=0, metrics=0)
    assert len({ports.http, ports.grpc, ports.metrics, 0}) == 4
    again = choose_ports("127.0.0.1", http=ports.http, grpc=ports.grpc, metrics=ports.metrics)
    assert again == ports, "they are free again afterwards"


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_port_in_use_is_named_with_its_option(taken: int, name: str) -> None:
    asked = {"http": 0, "grpc": 0, "metrics": 0, name: taken}
    with pytest.raises(PortUnavailable, match=f"^port {taken} on 127.0.0.1 is in use; .*--{name}-port"):
        choose_ports("127.0.0.1", **asked)


def test_port_in_use_on_one_address_is_in_use_for_all(taken: int) -> None:
    with pytest.raises(PortUnavailable, match="is in use"):
        choose_ports("0.0.0.0", http=taken, grpc=0, metrics=0)


def test_same_port_twice() -> None:
    (free, *_) = (choose_ports("127.0.0.1", http=0, grpc=0, metrics=0).http,)
    with pytest.raises(PortUnavailable, match=f"--http-port and --metrics-port are both {free}"):
        choose_ports("127.0.0.1", http=free, grpc=0, metrics=free)


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_port_at_all(port: int) -> None:
    with pytest.raises(PortUnavailable, match=f"--grpc-port {port} is not a port"):
        choose_ports("127.0.0.1", http=0, grpc=port, metrics=0)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])  # reserved for documentation: never ours
def test_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(BadOption, match=f"--host {host} "):
        choose_ports(host, http=0, grpc=0, metrics=0)


@pytest.mark.parametrize(
    ("listens_on", "called_at"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")],
)
def test_where_a_listening_server_is_called(listens_on: str, called_at: str) -> None:
    assert url_host(reachable_host(listens_on)) == called_at
