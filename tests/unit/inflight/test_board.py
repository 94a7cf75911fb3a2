"""Job states and cancellations over the board."""

from __future__ import annotations

import io
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of, stand_before_the_next_step
from tests.waiting import WITHIN
from triton_diffusers.api.request import Function, Link
from triton_diffusers.inflight.job import JobState
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.links.fetcher import LinkFetcher


def test_cancel_over_the_board_ends_the_job(start_loop: StartLoop, engine: FakeEngine, board: JobBoard) -> None:
    loop = start_loop(engine, board=board, max_images_in_flight=2)
    engine.turnstile.hold()
    jobs = [loop.submit(request_for(task_id=task_id)) for task_id in ("keep", "drop", "drop")]
    stand_before_the_next_step(engine)
    board.cancel("drop")
    engine.turnstile.open()
    finish(loop, *jobs)
    assert [job.state for job in jobs] == [JobState.SUCCEEDED, JobState.CANCELLED, JobState.CANCELLED]
    assert {entry.state for entry in board.entries("drop")} == {"cancelled"}


def test_cancel_over_the_board_while_links_are_fetched(
    start_loop: StartLoop, engine: FakeEngine, board: JobBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancel on an otherwise idle server, where no step leads to a look at the board."""
    fetched: list[str] = []
    fetching, may_end = threading.Event(), threading.Event()
    white = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(white, "PNG")

    def fetch(self: LinkFetcher, field: str, url: str) -> bytes:
        fetched.append(field)
        fetching.set()
        assert may_end.wait(WITHIN)
        return white.getvalue()

    monkeypatch.setattr(LinkFetcher, "fetch", fetch)
    loop = start_loop(engine, board=board, max_link_fetches=1)
    image, mask = Link("https://example.com/image"), Link("https://example.com/mask")
    job = loop.submit(request_for(function=Function.INPAINT, image=image, mask=mask))
    assert fetching.wait(WITHIN)
    board.cancel("a-task")
    finish(loop, job)
    assert job.state is JobState.CANCELLED
    may_end.set()
    loop.stop()
    assert fetched == ["image_link"], "the mask is not fetched for nobody"


def test_board_shows_progress(start_loop: StartLoop, engine: FakeEngine, board: JobBoard) -> None:
    loop = start_loop(engine, board=board, max_images_in_flight=2)
    engine.turnstile.hold()
    job = loop.submit(request_for(task_id="first", image_num=2, steps=3))
    waiting = loop.submit(request_for(task_id="second"))
    stand_before_the_next_step(engine)
    entries = {entry.task_id: entry for entry in board.entries()}
    assert (entries["first"].state, entries["first"].step, entries["first"].steps) == ("running", 0, 6)
    assert (entries["second"].state, entries["second"].steps) == ("queued", 0)
    assert {entry.model for entry in entries.values()} == {"sd_base"}
    engine.turnstile.open()
    finish(loop, job, waiting)
    (entry,) = board.entries("first")
    assert (entry.state, entry.step, entry.steps) == ("succeeded", 6, 6)
    assert (entry.image_num, entry.images_done) == (2, 2)
    assert entry.ended is not None


def test_board_shows_failures(start_loop: StartLoop, engine: FakeEngine, board: JobBoard) -> None:
    loop = start_loop(engine, board=board)
    finish(loop, loop.submit(request_for("boom")))
    (entry,) = board.entries()
    assert (entry.state, entry.error_msg) == ("failed", "task a-task failed; the server's log says why")


def test_board_counts_calls_of_second_order_schedulers(
    start_loop: StartLoop, engine: FakeEngine, board: JobBoard
) -> None:
    loop = start_loop(engine, board=board)
    finish(loop, loop.submit(request_for(scheduler="Heun", steps=4)))
    (entry,) = board.entries()
    assert (entry.step, entry.steps) == (7, 7)


def test_broken_board_does_not_affect_jobs(
    start_loop: StartLoop, engine: FakeEngine, board: JobBoard, tmp_path: Path
) -> None:
    loop = start_loop(engine, board=board)
    engine.turnstile.hold()
    job = loop.submit(request_for())
    engine.turnstile.allow(1)
    with closing(sqlite3.connect(tmp_path / "board" / "jobs.sqlite")) as other:
        other.execute("DROP TABLE jobs")
    engine.turnstile.open()
    finish(loop, job, after := loop.submit(request_for()))
    assert images_of(job) == images_of(after)
