import json
import os
import signal
from pathlib import Path

import pytest
import torch

from training.emoji.run import Run, load_checkpoint
from training.emoji.schedule import warmup_cosine


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Run(tmp_path, "stage")
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_sigterm_asks_for_a_stop(run: Run) -> None:
    assert not run.stopping
    os.kill(os.getpid(), signal.SIGTERM)
    assert run.stopping


def test_checkpoint_log_and_pid(run: Run) -> None:
    assert run.load() is None
    run.save({"step": 3, "weights": torch.ones(2)})
    state = load_checkpoint(run.root, "stage")
    assert state is not None
    assert state["step"] == 3
    run.log(step=3, loss=0.5)
    assert json.loads((run.folder / "log.jsonl").read_text())["loss"] == 0.5
    assert int((run.root / "train.pid").read_text()) == os.getpid()


def test_the_rate_warms_up_and_decays() -> None:
    rates = [warmup_cosine(step, 1000, 1.0) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[1000] == pytest.approx(0.02)
