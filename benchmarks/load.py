"""Load generators: one that lets requests arrive at given times, and one that keeps a number of them in flight."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from benchmarks.systems import System, pictures
from benchmarks.workload import Ask

# Longest that any single request may take, in seconds.
REQUEST_SECONDS = 180.0
_SAY_SECONDS = 15.0

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One request that was sent. Times are seconds since the beginning of the run; ``error`` is empty if it went well.

    ``due`` is when the request was to be sent; a client that is late does not make a server look better.
    """

    ask: Ask
    due: float
    sent: float
    answered: float
    error: str

    @property
    def latency(self) -> float:
        """Seconds from when it was due to its answer."""
        return self.answered - self.due


class Caller:
    """Sends requests to one system over gRPC. May be used by several threads."""

    def __init__(self, system: System, address: str) -> None:
        self.system = system
        self._client = triton.InferenceServerClient(address)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def server_version(self) -> str:
        """The version of tritonserver."""
        return str(self._client.get_server_metadata().version)

    def call(self, ask: Ask) -> Sequence[bytes]:
        """Send a request and wait for its pictures. Raises ``InferenceServerException``."""
        return pictures(
            self._client.infer(self.system.model, self.system.inputs(triton, ask), client_timeout=REQUEST_SECONDS)
        )

    def seconds(self, ask: Ask) -> float:
        """Send a request, wait for its pictures, and say how long that took."""
        began = time.perf_counter()
        self.call(ask)
        return time.perf_counter() - began

    def send(self, inputs: list[Any], answer: Callable[[Any, Any], None]) -> None:
        """Send a request and return; ``answer(result, error)`` is called, from another thread, when it is answered."""
        self._client.async_infer(self.system.model, inputs, answer, client_timeout=REQUEST_SECONDS)


def open_loop(caller: Caller, asks: Sequence[Ask], arrivals: Sequence[float], say: Say) -> Sequence[Outcome]:
    """Send each request at its arrival time, however many are still unanswered; returns when all are answered.

    ``arrivals`` are seconds from now, ascending.
    """
    ready = [caller.system.inputs(triton, ask) for ask in asks]  # made before the clock runs
    outcomes: list[Outcome | None] = [None] * len(asks)
    remaining = threading.Semaphore(0)
    began = time.perf_counter()

    def now() -> float:
        return time.perf_counter() - began

    def answered(index: int, sent: float, /, result: Any, error: Any) -> None:
        outcomes[index] = Outcome(
            ask=asks[index],
            due=arrivals[index],
            sent=sent,
            answered=now(),
            error=_error_of(result, error, asks[index]),
        )
        remaining.release()

    said = 0.0
    for index, due in enumerate(arrivals):
        while (pause := due - now()) > 0:
            time.sleep(min(pause, 1.0))
            said = _say_now_and_then(say, said, now(), sum(one is not None for one in outcomes), len(asks))
        sent = now()
        caller.send(ready[index], partial(answered, index, sent))
    count = 0
    while count < len(asks):
        if remaining.acquire(timeout=1.0):
            count += 1
        elif now() > (arrivals[-1] if arrivals else 0.0) + REQUEST_SECONDS + 10.0:
            raise TimeoutError(f"{len(asks) - count} requests were never answered")
        said = _say_now_and_then(say, said, now(), count, len(asks))
    return [one for one in outcomes if one is not None]


def closed_loop(caller: Caller, asks: Sequence[Ask], concurrency: int, limit: float, say: Say) -> Sequence[Outcome]:
    """Send all requests, ``concurrency`` of them at a time, in their order; returns when all are answered.

    After ``limit`` seconds no more are sent.
    """
    numbers = itertools.count()
    outcomes: list[Outcome] = []
    began = time.perf_counter()

    def now() -> float:
        return time.perf_counter() - began

    def work() -> None:
        while (index := next(numbers)) < len(asks) and now() < limit:
            sent = now()
            error = ""
            try:
                caller.call(asks[index])
            except InferenceServerException as failure:
                error = str(failure)
            outcomes.append(Outcome(ask=asks[index], due=sent, sent=sent, answered=now(), error=error))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    said = 0.0
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=1.0)
            said = _say_now_and_then(say, said, now(), len(outcomes), len(asks))
    return outcomes


def _error_of(result: Any, error: Any, ask: Ask) -> str:
    if error is not None:
        return str(error)
    got = len(pictures(result))
    return "" if got == ask.images else f"{got} pictures instead of {ask.images}"


def _say_now_and_then(say: Say, said: float, now: float, done: int, count: int) -> float:
    """Report progress at times; returns when that was last done."""
    if now - said < _SAY_SECONDS:
        return said
    say(f"{now:.0f} s: {done} of {count} answered")
    return now
