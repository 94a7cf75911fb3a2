"""Names to addresses, within a time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread

import httpcore2

from triton_diffusers.fetch.target import IPAddress, parse_address
from triton_diffusers.fetch.transport import Deadline

# All addresses of a name; none, or an OSError, if it is not known.
Resolver = Callable[[str], Sequence[IPAddress]]


def system_resolver(host: str) -> Sequence[IPAddress]:
    """Ask the operating system, once, for the addresses of both families."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # The order is the system's preference. A zone is part of link-local addresses only, which are read with it.
    addresses = (parse_address(str(answer[4][0])) for answer in answers)
    return list(dict.fromkeys(address for address in addresses if address is not None))


def resolve(resolver: Resolver, host: str, deadline: Deadline) -> Sequence[IPAddress]:
    """The resolver's answer. Raises ``httpcore2.ReadTimeout`` when the time is over before it comes.

    The system's resolver cannot be interrupted, so it runs in a thread that is left behind then.
    """
    answer: Future[Sequence[IPAddress]] = Future()

    def ask() -> None:
        try:
            answer.set_result(resolver(host))
        except (OSError, UnicodeError):  # a name that is not known, or that no name can look like
            answer.set_result(())

    Thread(target=ask, name="resolve", daemon=True).start()
    try:
        return answer.result(deadline.left())
    except TimeoutError as error:
        raise httpcore2.ReadTimeout("the name was not resolved in time") from error
