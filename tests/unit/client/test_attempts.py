"""Which errors are tried again, how often, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from triton_diffusers_client import BusyError, CancelledError, ClientError, InvalidRequestError, RequestTimeoutError
from triton_diffusers_client.attempts import Attempts, pause_before
from triton_diffusers_client.triton.cancellation import Cancellation


def failing(*errors: ClientError) -> Callable[[float | None], str]:
    """Return an attempt that fails with these errors, one after the other, and then succeeds."""
    left = list(errors)

    def attempt(timeout: float | None) -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


def test_an_error_that_passes_is_waited_for() -> None:
    pauses: list[float] = []
    assert Attempts(None, retries=3).run(failing(BusyError("1"), BusyError("2")), sleep=pauses.append) == "done"
    assert len(pauses) == 2
    assert pauses[1] > pauses[0]


def test_the_last_error_is_raised() -> None:
    with pytest.raises(BusyError, match="3"):
        Attempts(None, retries=2).run(failing(*map(BusyError, "1234")), sleep=lambda _: None)


def test_without_retries_the_first_error_is_raised() -> None:
    with pytest.raises(BusyError):
        Attempts(None, retries=0).run(failing(BusyError("x")))


@pytest.mark.parametrize("worth_it", [True, False])
def test_an_error_that_stays_is_raised_at_once(worth_it: bool) -> None:
    error = InvalidRequestError("x") if worth_it else BusyError("x")
    with pytest.raises(type(error)):
        Attempts(None, retries=5).run(failing(error), sleep=pytest.fail, worth_it=lambda _: worth_it)


def test_a_pause_that_would_outlast_the_time_is_not_begun() -> None:
    with pytest.raises(BusyError):
        Attempts(timeout=0.3, retries=5).run(failing(BusyError("x")), sleep=pytest.fail)


def test_no_attempt_is_begun_without_time() -> None:
    with pytest.raises(RequestTimeoutError):
        Attempts(timeout=0.0, retries=5).run(failing())


def test_pauses_grow_to_a_limit() -> None:
    assert 0.375 <= pause_before(1) <= 0.5
    assert 1.5 <= pause_before(3) <= 2.0
    assert 6.0 <= pause_before(30) <= 8.0


def test_a_pause_ends_when_the_request_is_cancelled() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        Attempts(None, retries=5).run(failing(BusyError("x")), sleep=cancellation.sleep)
