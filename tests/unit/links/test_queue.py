"""Links take turns by host, and silent hosts hold up their own links only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from urllib.parse import urlsplit

import pytest

from tests.waiting import WITHIN
from triton_diffusers.errors import Busy, InvalidImage
from triton_diffusers.links.fetcher import LinkFetcher
from triton_diffusers.links.queue import LinkQueue
from triton_diffusers.settings import Settings


class Hosts:
    """Answers links at once, but for those of silent hosts, which wait until ``answer``."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.answering = False
        self.asked: list[str] = []

    def host_of(self, field: str, url: str) -> str:
        return urlsplit(url).hostname or ""

    def fetch(self, field: str, url: str) -> bytes:
        with self.changed:
            self.asked.append(url)
            self.changed.notify_all()
            if "silent" in url:
                assert self.changed.wait_for(lambda: self.answering, WITHIN)
        if "broken" in url:
            raise InvalidImage(field, url, "no")
        return url.encode()

    def answer(self) -> None:
        with self.changed:
            self.answering = True
            self.changed.notify_all()

    def wait_for(self, links: int) -> None:
        """Wait until so many links were asked for."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= links, WITHIN)


Start = Callable[..., LinkQueue]


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def start(hosts: Hosts) -> Iterator[Start]:
    started: list[LinkQueue] = []

    def make(*, threads: int = 4, places: int = 12, patience: float = WITHIN) -> LinkQueue:
        started.append(LinkQueue(hosts, threads=threads, places=places, patience=patience))
        return started[-1]

    yield make
    hosts.answer()
    for queue in started:
        queue.stop()


def fetch(queue: LinkQueue, *urls: str, given_up: Callable[[], bool] = lambda: False) -> Future[None]:
    return queue.fetch({f"http://{url}": "image_link" for url in urls}, lambda url, body: None, given_up)


def ends(future: Future[None]) -> bool:
    """Wait for a request's links; raise their error."""
    future.result(WITHIN)
    return True


def test_all_links_of_a_request_come_together(start: Start) -> None:
    bodies: dict[str, bytes] = {}
    links = {f"http://{url}": "image_link" for url in ("a/1", "b/2", "a/3")}
    start().fetch(links, bodies.__setitem__, lambda: False).result(WITHIN)
    assert bodies == {f"http://{url}": f"http://{url}".encode() for url in ("a/1", "b/2", "a/3")}


def test_the_first_error_is_the_requests(start: Start, hosts: Hosts) -> None:
    with pytest.raises(InvalidImage, match="broken"):
        fetch(start(), "silent/1", "broken/2").result(WITHIN)


def test_a_body_that_is_not_taken_is_the_requests_error(start: Start) -> None:
    def take(url: str, body: bytes) -> None:
        raise Busy("no room")

    with pytest.raises(Busy, match="no room"):
        start().fetch({"http://a/1": "image_link", "http://b/2": "image_link"}, take, lambda: False).result(WITHIN)


def test_a_silent_host_does_not_hold_up_other_hosts(start: Start, hosts: Hosts) -> None:
    queue = start()
    silent = [fetch(queue, f"silent/{number}") for number in range(6)]
    hosts.wait_for(2)  # half of the threads
    assert ends(fetch(queue, "a/1"))
    assert len(hosts.asked) == 3
    hosts.answer()
    assert all(ends(future) for future in silent)


def test_the_host_with_the_fewest_fetches_goes_first(start: Start, hosts: Hosts) -> None:
    queue = start(threads=3)  # one of them for each host
    fetch(queue, "silent-a/1")
    fetch(queue, "silent-b/1")
    fetch(queue, "silent-c/1")
    hosts.wait_for(3)
    late = [fetch(queue, url) for url in ("silent-a/2", "d/1", "silent-b/2")]
    hosts.answer()
    assert all(ends(future) for future in late)
    assert set(hosts.asked[:3]) == {"http://silent-a/1", "http://silent-b/1", "http://silent-c/1"}


def test_one_host_gets_half_of_the_places(start: Start) -> None:
    queue = start()
    for number in range(6):
        fetch(queue, f"silent/{number}")
    with pytest.raises(Busy, match=r"image_link: too many links to 'silent' wait already"):
        fetch(queue, "silent/more")
    assert ends(fetch(queue, "a/1"))


def test_all_hosts_together_get_no_more_than_the_places(start: Start) -> None:
    queue = start()
    for number in range(12):
        fetch(queue, f"silent-{number}/")
    with pytest.raises(Busy, match="links: 12 wait already"):
        fetch(queue, "a/1")


def test_a_request_is_refused_as_a_whole(start: Start, hosts: Hosts) -> None:
    queue = start(places=4)
    with pytest.raises(Busy):
        fetch(queue, "a/1", *(f"silent/{number}" for number in range(3)))
    assert not hosts.asked
    assert fetch(queue, "a/1", "silent/1")


def test_given_up_links_free_their_places(start: Start, hosts: Hosts) -> None:
    queue, given_up = start(), threading.Event()
    for number in range(6):
        fetch(queue, f"silent/{number}", given_up=given_up.is_set)
    hosts.wait_for(2)
    given_up.set()
    wanted = [fetch(queue, f"silent/wanted-{number}") for number in range(4)]
    hosts.answer()
    assert all(ends(future) for future in wanted)
    assert len(hosts.asked) == 6  # two that were under way, and the wanted ones


def test_a_link_that_waits_too_long_is_busy(start: Start, hosts: Hosts) -> None:
    queue = start(threads=1, patience=1.0)
    fetch(queue, "silent/1")
    hosts.wait_for(1)
    late = fetch(queue, "silent/2")
    time.sleep(1.2)
    hosts.answer()
    with pytest.raises(Busy, match=r"links: not fetched within 1 seconds"):
        late.result(WITHIN)
    assert len(hosts.asked) == 1


def test_a_malformed_link_is_refused_at_once() -> None:
    queue = LinkQueue(LinkFetcher(Settings()), threads=1, places=2, patience=1.0)
    with pytest.raises(InvalidImage, match=r"mask_link: 'ftp://a/b' is invalid: must begin with http://"):
        queue.fetch({"ftp://a/b": "mask_link"}, lambda url, body: None, lambda: False)
    queue.stop()
