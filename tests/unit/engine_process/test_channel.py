"""Channels: ``send`` never blocks, ``close`` ends both ends, and only the owner can connect."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.conftest import result_with
from tests.unit.engine_process.peers import Listener
from tests.waiting import WITHIN
from triton_diffusers.engine_process.channel import connect
from triton_diffusers.engine_process.messages import Cancel, Failed, LoadFailed, Ping, Succeeded
from triton_diffusers.errors import EngineFailure, InvalidImage, NotTranslated, TimedOut

MEGABYTE = bytes(range(256)) * 4096

Listening = Callable[[Path], Listener]


@pytest.fixture
def path(runtime_dir: Path) -> Path:
    return runtime_dir / "engine.sock"


def with_images(*images: bytes) -> Succeeded:
    return Succeeded("a", result_with(images=images))


def test_messages_come_in_order_over_a_path_longer_than_an_address(path: Path, listening: Listening) -> None:
    assert len(os.fsencode(path)) > 108
    listener = listening(path)
    client = connect(path)
    server = listener.accept()
    for number in range(100):
        client.send(Cancel(str(number)))
    assert [server.received() for _ in range(100)] == [Cancel(str(number)) for number in range(100)]
    client.close()


def test_a_message_of_many_megabytes_arrives_whole(path: Path, listening: Listening) -> None:
    listener = listening(path)
    client = connect(path)
    sent = with_images(*[MEGABYTE] * 20)
    client.send(sent)
    assert listener.accept().received() == sent
    client.close()


@pytest.mark.parametrize(
    "error",
    [EngineFailure("it failed"), InvalidImage("image", b"abc", "not an image"), TimedOut(2.5), NotTranslated("prompt")],
)
def test_errors_arrive_with_their_fields(path: Path, listening: Listening, error: EngineFailure) -> None:
    listener = listening(path)
    client = connect(path)
    client.send(Failed("a", error))
    message = listener.accept().received()
    assert isinstance(message, Failed)
    assert (type(message.error), str(message.error), vars(message.error)) == (type(error), str(error), vars(error))
    client.close()


def test_a_reader_that_has_stopped_blocks_nobody(path: Path, listening: Listening) -> None:
    listening(path)  # which accepts nothing
    client = connect(path)
    for _ in range(20):
        client.send(with_images(MEGABYTE))
    client.flush(0.05)
    client.close()
    client._writer.join(WITHIN)
    assert not client._writer.is_alive()


def test_flush_waits_until_everything_is_sent(path: Path, listening: Listening) -> None:
    listener = listening(path)
    client = connect(path)
    server = listener.accept()
    for _ in range(5):
        client.send(with_images(MEGABYTE))
    client.send(LoadFailed("the last words"))
    client.flush(WITHIN)
    client.close()
    received = [server.received() for _ in range(7)]
    assert received[5:] == [LoadFailed("the last words"), None]


@pytest.mark.parametrize("closes", ["reader", "other end"])
def test_close_wakes_a_reader_that_waits(path: Path, listening: Listening, closes: str) -> None:
    listener = listening(path)
    client = connect(path)
    server = listener.accept()
    reading = threading.Thread(target=lambda: list(client.receive()))
    reading.start()
    (client if closes == "reader" else server).close()
    reading.join(WITHIN)
    assert not reading.is_alive()
    client.close()


def test_a_listener_of_another_user_is_not_connected_to(
    path: Path, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening(path)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)  # a second user takes root
    with pytest.raises(PermissionError, match=r"the other end belongs to user \d+"):
        connect(path)


def test_messages_to_an_end_that_is_gone_are_dropped(path: Path, listening: Listening) -> None:
    listener = listening(path)
    client = connect(path)
    listener.accept().close()
    assert list(client.receive()) == []
    for _ in range(3):
        client.send(Ping())
    client._writer.join(WITHIN)
    assert not client._writer.is_alive()
    client.close()
    client.send(Ping())


def test_a_message_that_cannot_be_sent_ends_the_connection(
    path: Path, listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for ever for it."""
    listener = listening(path)
    client = connect(path)
    server = listener.accept()
    client.send(LoadFailed(lambda: None))  # type: ignore[arg-type]
    assert server.received() is None
    assert list(client.receive()) == []
    assert "a message cannot be sent" in caplog.text


def test_a_message_that_cannot_be_read_ends_the_connection(
    path: Path, listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    listener = listening(path)
    client = connect(path)
    server = listener.accept()
    client._connection.send_bytes(b"not a pickle")
    assert server.received() is None
    assert "a message cannot be read" in caplog.text
    client.close()


def test_the_socket_is_its_owners_alone(path: Path, listening: Listening) -> None:
    listening(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_socket_that_a_killed_process_has_left_is_replaced(path: Path, listening: Listening) -> None:
    listening(path).close()
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    listener = listening(path)
    client = connect(path)
    client.send(Ping())
    assert listener.accept().received() == Ping()
    client.close()


@pytest.mark.parametrize("name", ["engine.sock", "missing/engine.sock"])
def test_a_missing_socket_is_an_oserror(runtime_dir: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        connect(runtime_dir / name)


def test_closed_channels_keep_no_descriptors(path: Path, listening: Listening) -> None:
    listener = listening(path)

    def open_descriptors() -> int:
        gc.collect()
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = open_descriptors()
    for _ in range(10):
        client = connect(path)
        server = listener.accept()
        client.close()
        assert server.received() is None
        server.close()
        for channel in (client, server.channel):
            channel._writer.join(WITHIN)
    listener.accepted.clear()
    del client, server, channel
    assert open_descriptors() <= before + 1
