"""Ends of connections that record what they receive."""

from __future__ import annotations

import threading
from pathlib import Path
from queue import SimpleQueue

from tests.waiting import WITHIN
from triton_diffusers.engine_process.channel import Channel, listen
from triton_diffusers.engine_process.messages import Message


class Peer:
    """One end of a connection that records what it receives; ``received`` blocks until a message has come."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._messages: SimpleQueue[Message | None] = SimpleQueue()
        threading.Thread(target=self._receive, daemon=True).start()

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.channel.send(message)

    def received(self) -> Message | None:
        """Return the next message; None at the end of the connection."""
        return self._messages.get(timeout=WITHIN)

    def has_received(self) -> bool:
        """Return True if a message waits to be looked at."""
        return not self._messages.empty()

    def close(self) -> None:
        self.channel.close()

    def record(self, message: Message) -> None:
        """Keep a message until it is looked at."""
        self._messages.put(message)

    def _receive(self) -> None:
        for message in self.channel.receive():
            self.record(message)
        self._messages.put(None)


class Listener:
    """A listening socket that waits for one connection after another."""

    def __init__(self, path: Path) -> None:
        self._socket = listen(path)
        self.accepted: list[Peer] = []

    def accept(self) -> Peer:
        self._socket.settimeout(WITHIN)
        end, _ = self._socket.accept()
        end.setblocking(True)
        self.accepted.append(Peer(Channel(end)))
        return self.accepted[-1]

    def close(self) -> None:
        self._socket.close()
