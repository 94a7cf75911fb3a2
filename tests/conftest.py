"""Fixtures of all tests: the same environment, however pytest was started."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Read by PyTorch when it is imported, here and in the servers. With more threads than free cores, most of the time
# of small operations is spent in OpenMP's barriers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Unit tests whose modules make graphs of a compiler each take minutes together.
COMPILING = ("test_compiled", "test_fixed_unet", "test_inductor", "test_openvino", "test_shallow", "test_upsampling")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-unit` leaves out."""
    for item in items:
        if item.path.is_relative_to(TESTS / "integration"):
            item.add_marker(pytest.mark.triton)
        elif item.path.is_relative_to(TESTS / "unit" / "engines") and item.path.stem.startswith(COMPILING):
            item.add_marker(pytest.mark.compile)


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """Undo what a shell in the background and ``nohup`` do: processes that tests start would ignore the signals too."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    ignored = [number for number in usual if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers, builds and whatever else tests start leave nothing in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_DIFFUSERS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
