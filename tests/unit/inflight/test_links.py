"""Requests with links to silent hosts do not delay other requests."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.links.local_server import LocalServer, ok
from tests.unit.loops import StartLoop, images_of
from tests.waiting import WITHIN
from triton_diffusers.api.request import Function, Link
from triton_diffusers.errors import Busy, InvalidImage


def red() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def silent() -> Iterator[LocalServer]:
    """Serve a host that accepts connections and answers only ``/red.png``."""

    def answer(request: bytes) -> Iterator[bytes]:
        if b"/red.png" in request:
            yield ok(red())
        else:
            server.stopping.wait(WITHIN)

    server = LocalServer(answer)
    yield server
    server.stop()


SETTINGS = {"link_allow_hosts": "127.0.0.1,localhost", "link_seconds": WITHIN, "max_link_queue": 8, "max_queue": 2}


def test_silent_links_do_not_delay_other_requests(
    start_loop: StartLoop, engine: FakeEngine, silent: LocalServer
) -> None:
    loop = start_loop(engine, **SETTINGS)
    link = Link(f"http://127.0.0.1:{silent.port}/silent.png")
    waiting = [loop.submit(request_for(function=Function.IMAGE_TO_IMAGE, image=link)) for _ in range(4)]
    with pytest.raises(Busy, match=r"image_link: too many links to '127\.0\.0\.1'"):
        loop.submit(request_for(function=Function.IMAGE_TO_IMAGE, image=link))
    others = [
        loop.submit(request_for(function=Function.IMAGE_TO_IMAGE, image=image))
        for image in (red(), Link(f"http://localhost:{silent.port}/red.png"))
    ]
    finish(loop, *others)
    finish(loop, text := loop.submit(request_for()))  # twice the queue's limit
    assert all(images_of(job) for job in (*others, text))
    assert not any(job.state.ended for job in waiting)
    silent.stopping.set()
    finish(loop, *waiting)
    assert all(isinstance(job.error, InvalidImage) for job in waiting)


def test_rejected_link_frees_its_memory(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    with pytest.raises(InvalidImage, match="image_link"):
        loop.submit(request_for(function=Function.IMAGE_TO_IMAGE, image=Link("ftp://example.com")))
    finish(loop, job := loop.submit(request_for()))
    assert images_of(job)
