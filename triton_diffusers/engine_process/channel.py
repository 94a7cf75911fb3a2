"""Channels: message connections over a Unix socket, whose ``send`` never blocks.

Messages are pickled, so both ends must trust each other: each accepts the other only if it is of the same user.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from triton_diffusers.engine_process.messages import Message

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
_BACKLOG = 64  # connections that wait to be accepted
_CREDENTIALS = struct.Struct("3i")  # process, user and group


class Channel:
    """One end of a connection. A thread sends its messages, since the other end may be stopped or slow."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._connection = Connection(os.dup(end.fileno()))
        self._outgoing: SimpleQueue[Message | threading.Event | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="channel", daemon=True)
        self._writer.start()

    def send(self, message: Message) -> None:
        """Queue a message; it is dropped if the other end is gone."""
        self._outgoing.put(message)

    def receive(self) -> Iterator[Message]:
        """Yield the other end's messages until either end closes the channel."""
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                return
            except Exception:
                logger.exception("a message cannot be read; this is a bug")
                return
            yield message

    def drain(self, seconds: float) -> None:
        """Wait until the queued messages are sent, at most ``seconds``: the other end gets them even if we die."""
        sent = threading.Event()
        self._outgoing.put(sent)
        deadline = time.monotonic() + seconds
        while not sent.wait(_LOOK_SECONDS) and self._writer.is_alive() and time.monotonic() < deadline:
            pass

    def flush(self, seconds: float) -> None:
        """Wait until the queued messages are sent, at most ``seconds``; nothing can be sent after it."""
        self._outgoing.put(None)
        self._writer.join(seconds)

    def close(self) -> None:
        """Close the connection: ``receive`` ends at both ends."""
        self._outgoing.put(None)
        # Closing the descriptor would not wake a blocked reader.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _write(self) -> None:
        try:
            while (message := self._outgoing.get()) is not None:
                if isinstance(message, threading.Event):
                    message.set()
                else:
                    self._connection.send(message)
        except OSError:  # the other end is gone
            return
        except Exception:
            logger.exception("a message cannot be sent; this is a bug")
            self.close()  # both ends then act as if the other one had ended, so nobody waits for this message


def listen(path: Path) -> socket.socket:
    """Return a listening socket at ``path``; the caller holds the lock that makes it the only one there."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with _short(path) as address:
        listener.bind(address)
    path.chmod(0o600)  # whoever connects can run code here
    listener.listen(_BACKLOG)
    return listener


def connect(path: Path) -> Channel:
    """Connect to the listening socket at ``path``. Raises ``OSError`` if nobody of this user listens there."""
    end = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as address:
            end.connect(address)
        check_peer(end)
    except OSError:
        end.close()
        raise
    return Channel(end)


def check_peer(end: socket.socket) -> None:
    """Raise ``PermissionError`` unless the other end belongs to a process of this user."""
    _, user, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if user != os.getuid():
        raise PermissionError(f"the other end belongs to user {user}")


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a short name of ``path``: the kernel takes 108 bytes, and a runtime directory's path may be longer."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
