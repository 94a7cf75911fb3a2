"""Addresses that a link may reach."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_diffusers.links.address_rules import AddressRules, is_public


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.216.34",
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "2a00:1450:4001::1",
        "64:ff9b::8.8.8.8",
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:2::1",
        "2001:10::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public(ip_address(address))


@given(st.ip_addresses())
def test_addresses_that_python_calls_private_are_refused(address: IPv4Address | IPv6Address) -> None:
    # The other way round does not hold: the library's tables have gaps.
    if is_public(address) and address not in IPv6Network("64:ff9b::/96"):
        assert not any((address.is_private, address.is_multicast, address.is_link_local))


PUBLIC, PRIVATE = ip_address("8.8.8.8"), ip_address("10.1.2.3")


def test_all_addresses_of_a_host_count() -> None:
    rules = AddressRules()
    assert rules.accept("example.com", [PUBLIC])
    assert not rules.accept("example.com", [PUBLIC, PRIVATE])
    assert not rules.accept("example.com", [PRIVATE, PUBLIC])
    assert not rules.accept("example.com", [])


def test_a_host_is_allowed_by_its_name_and_only_it() -> None:
    rules = AddressRules(["MinIO.local."])
    assert rules.accept("minio.local", [PRIVATE])
    assert not rules.accept("evil.minio.local", [PRIVATE])
    assert not rules.accept("local", [PRIVATE])
    assert not rules.accept("minio.local", [])
    assert not rules.accept("10.1.2.3", [PRIVATE])


def test_addresses_and_networks_are_allowed() -> None:
    rules = AddressRules(["10.1.2.3", "192.168.0.0/16", "fd00::/8", "[::1]"])
    for address in ("10.1.2.3", "192.168.7.7", "fd12::1", "::1"):
        assert rules.accept("example.com", [ip_address(address), PUBLIC])
    for address in ("10.1.2.4", "127.0.0.1", "fc00::1"):
        assert not rules.accept("example.com", [ip_address(address)])


def test_a_mapped_address_does_not_pass_for_the_one_that_is_allowed() -> None:
    assert not AddressRules(["127.0.0.0/8"]).accept("example.com", [ip_address("::ffff:127.0.0.1")])
