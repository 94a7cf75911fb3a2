"""A service under load whose processes are killed loses no request and does nothing twice."""

from __future__ import annotations

import pytest

from benchmarks.servers import MODEL_DIR
from benchmarks.service_deaths import OWNERS, PROBER, SETTINGS, Load, check, run
from benchmarks.service_stack import DATABASE, service

SECONDS = 600.0  # patience of the clients; generous, for loaded machines
PLAN = (("runner", 0.3), ("gateway", 0.5), (DATABASE, 0.3), ("engine", 0.3))


@pytest.mark.timeout(2400)
def test_killed_processes_lose_no_request() -> None:
    with service(MODEL_DIR, (*OWNERS, PROBER), postgresql=True, seconds=SECONDS, settings=SETTINGS) as stack:
        load = Load(stack.client, seed=1, steps=2, side=64)
        try:
            run(stack, PLAN, 18, load, print)
            answers = load.answers()
        finally:
            load.close()
        figures = check(stack, answers, print)
    assert figures["requests"] == figures["jobs"] == 18 + 1 + len(PLAN)
    assert set(figures["violations"].values()) == {0}, figures
