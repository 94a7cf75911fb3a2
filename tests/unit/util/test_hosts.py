"""Hosts that servers listen on."""

from __future__ import annotations

import pytest

from triton_diffusers.util.hosts import is_loopback


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_addresses_of_this_machine_only(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
