"""Ctrl-C while a job is under way: noted once, raised the second time, and never lost."""

from __future__ import annotations

import os
import signal
import threading
from argparse import Namespace
from typing import Any

import pytest

from triton_diffusers_client import CancelledError
from triton_diffusers_client.cli.interruption import Interruption
from triton_diffusers_client.cli.program import make_parser


class FakeJob:
    """A job that does not end by itself."""

    id = task_id = "a-task"
    cancelled = False

    def __init__(self) -> None:
        self.over = threading.Event()

    def result(self, timeout: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        self.over.wait(timeout)
        raise CancelledError("over")

    def cancel(self) -> bool:
        self.cancelled = True
        return True


class FakeClient:
    """Ctrl-C comes while the job is being sent, or while it is watched."""

    def __init__(self) -> None:
        self.sent = FakeJob()

    def submit(self, prompt: str, **options: Any) -> FakeJob:
        signal.raise_signal(signal.SIGINT)
        return self.sent

    def job(self, name: str) -> FakeJob:
        return self.sent


@pytest.fixture(autouse=True)
def interruptible() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_is_noted_and_the_second_raised() -> None:
    with Interruption() as interruption:
        assert not interruption.requested
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
    assert not interruption.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_job_that_is_just_being_sent_is_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient()
    args: Namespace = make_parser().parse_args(["generate", "a red apple"])
    assert args.command(client, args) == 130
    assert client.sent.cancelled
    assert capsys.readouterr().err == "interrupted; cancelled job a-task\n"


def test_a_job_that_is_watched_continues(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient()
    args: Namespace = make_parser().parse_args(["watch", "a-task"])
    try:
        assert args.command(client, args) == 130
    finally:
        client.sent.over.set()
    assert not client.sent.cancelled
    assert capsys.readouterr().err == "interrupted; job a-task continues\n"
