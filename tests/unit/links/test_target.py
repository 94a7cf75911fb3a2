"""Links, taken apart: each way of writing one that could mean two things."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_diffusers.links.url import LinkRefused, parse

BOTH = ("http", "https")


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "header"),
    [
        ("http://example.com", "example.com", 80, "/", "example.com"),
        ("HTTPS://Example.COM./A/b.png?x=1&y=%20#part", "example.com", 443, "/A/b.png?x=1&y=%20", "example.com"),
        ("http://example.com:8080/a", "example.com", 8080, "/a", "example.com:8080"),
        ("https://example.com:443/?a=?/", "example.com", 443, "/?a=?/", "example.com"),
        ("http://my_bucket.oss-cn.example/a", "my_bucket.oss-cn.example", 80, "/a", "my_bucket.oss-cn.example"),
        ("http://93.184.216.34/", IPv4Address("93.184.216.34"), 80, "/", "93.184.216.34"),
        ("http://[2606:4700::1]:8000/", IPv6Address("2606:4700::1"), 8000, "/", "[2606:4700::1]:8000"),
        (
            "http://example.com/红 苹果.png?q=红",
            "example.com",
            80,
            "/%E7%BA%A2%20%E8%8B%B9%E6%9E%9C.png?q=%E7%BA%A2",
            "example.com",
        ),
        ("http://xn--fsqu00a.xn--fiqs8s/", "xn--fsqu00a.xn--fiqs8s", 80, "/", "xn--fsqu00a.xn--fiqs8s"),
        ("http://example.com\u002f@evil/", "example.com", 80, "/@evil/", "example.com"),
    ],
)
def test_a_link_is_taken_apart(url: str, host: Any, port: int, path: str, header: str) -> None:
    target = parse(url, BOTH)
    assert (target.host, target.port, target.path, target.host_header) == (host, port, path, header)
    assert target.scheme == url.partition(":")[0].lower()


@pytest.mark.parametrize(
    ("url", "limit"),
    [
        ("file:///etc/passwd", "begin with"),
        ("ftp://example.com/a.png", "begin with"),
        ("gopher://example.com/", "begin with"),
        ("data:image/png;base64,QUJD", "begin with"),
        ("javascript:alert(1)", "begin with"),
        ("//example.com/a.png", "begin with"),
        ("example.com/a.png", "begin with"),
        ("", "begin with"),
        ("http:example.com", "its host"),
        ("http:///a.png", "its host"),
        ("http://", "its host"),
        ("http://user@example.com/", "user name"),
        ("http://user:password@example.com/", "user name"),
        ("http://example.com:80@127.0.0.1/", "user name"),
        ("http://@example.com/", "user name"),
        ("http://example.com\\@127.0.0.1/", "backslashes"),
        ("http:\\\\127.0.0.1/", "backslashes"),
        ("http://example.com/\r\nHost: evil", "control characters"),
        ("http://exam\tple.com/", "control characters"),
        ("http://example.com/\x00", "control characters"),
        ("http://example.com/\x7f", "control characters"),
        ("http://exam ple.com/", "its host"),
        ("http://example.com%2f@127.0.0.1/", "user name"),
        ("http://%31%32%37.0.0.1/", "usual form"),
        ("http://ex%61mple.com/", "its host"),
        ("http://a..example.com/", "its host"),
        ("http://.example.com/", "its host"),
        ("http://-example.com/", "its host"),
        ("http://example.com../", "its host"),
        ("http://*.example.com/", "its host"),
        (f"http://{'a' * 64}.com/", "its host"),
        (f"http://{'a.' * 127}com/", "its host"),
        ("http://exämple.com/", "its host"),
        ("http://①②⑦.⓪.⓪.①/", "its host"),
        ("http://127。0。0。1/", "its host"),
        ("http://127．0．0．1/", "its host"),
        ("http://１２７.0.0.1/", "usual form"),
        ("http://١٢٧.0.0.1/", "usual form"),
        ("http://localhos\u00adt/", "its host"),
        ("http://ℓocalhost/", "its host"),
        ("http://\u2100example.com/", "must be a URL"),
        ("http://2130706433/", "usual form"),
        ("http://017700000001/", "usual form"),
        ("http://0x7f000001/", "usual form"),
        ("http://0x7f.1/", "usual form"),
        ("http://0X7F.0.0.1/", "usual form"),
        ("http://127.1/", "usual form"),
        ("http://0127.0.0.1/", "usual form"),
        ("http://127.0.0.0x1/", "usual form"),
        ("http://1.2.3.4.5/", "usual form"),
        ("http://example.0x/", "usual form"),
        ("http://example.123/", "usual form"),
        ("http://0/", "usual form"),
        ("http://256.1.1.1/", "usual form"),
        ("http://[fe80::1%25eth0]/", "usual form"),
        ("http://[fe80::1%eth0]/", "usual form"),
        ("http://[::1", "must be a URL"),
        ("http://::1/", "must be a URL"),
        ("http://[127.0.0.1]/", "must be"),
        ("http://[v1.abc]/", "usual form"),
        ("http://example.com:99999/", "must be a URL"),
        ("http://example.com:-1/", "must be a URL"),
        ("http://example.com:８０/", "must be a URL"),
        ("http://example.com:0/", "its port"),
        ("http://example.com:22/", "its port"),
        ("http://example.com:25/", "its port"),
        ("http://example.com/\ud800", "must be a URL"),
        (f"http://example.com/{'a' * 4096}", "at most 4096 characters"),
    ],
)
def test_ambiguous_links_are_refused(url: str, limit: str) -> None:
    with pytest.raises(LinkRefused) as caught:
        parse(url, BOTH)
    assert limit in caught.value.limit


def test_the_schemes_are_those_that_are_allowed() -> None:
    assert parse("https://example.com/", ("https",)).port == 443
    with pytest.raises(LinkRefused, match=r"^must begin with https://$"):
        parse("http://example.com/", ("https",))


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://[", "http://example.com", "http://a:"]))
def test_no_text_raises_anything_else(text: str, beginning: str) -> None:
    try:
        target = parse(beginning + text, BOTH)
    except LinkRefused:
        return
    # All that goes over the wire is printable ASCII without a space.
    for part in (target.host_name, target.host_header, target.path):
        assert all("!" <= character <= "~" for character in part)
    assert target.path.startswith("/")
