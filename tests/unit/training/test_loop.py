import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from training.emoji.loop import Recipe, training_loop
from training.emoji.run import Run
from training.emoji.schedule import warmup_cosine

RECIPE = Recipe(peak_rate=0.1, warmup=2, log_every=2, checkpoint_every=3)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return Run(tmp_path, "stage")


class Descent:
    """One number that is to be 0, with plain gradient descent."""

    def __init__(self) -> None:
        self.number = torch.nn.Parameter(torch.ones(1))
        self.optimizer = torch.optim.SGD([self.number], lr=0.0)
        self.losses: list[float] = []

    def loss(self) -> torch.Tensor:
        loss = self.number.square().sum()
        self.losses.append(loss.item())
        return loss


def log_of(run: Run) -> list[dict[str, Any]]:
    path = run.folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_training_lowers_the_loss_and_saves_at_intervals(run: Run) -> None:
    descent = Descent()
    taken = list(training_loop(run, descent.optimizer, descent.loss, RECIPE, 0, 5))
    assert taken == [(1, False), (2, False), (3, True), (4, False), (5, True)]
    assert descent.losses == sorted(descent.losses, reverse=True)
    # The first step, at half the peak's rate along a gradient that is clipped to 1.
    assert descent.losses[1] == pytest.approx((1.0 - 0.05) ** 2, rel=1e-4)
    logged = log_of(run)
    assert [(line["stage"], line["step"]) for line in logged] == [("stage", 2), ("stage", 4)]
    assert logged[0]["loss"] == pytest.approx(0.98 * descent.losses[0] + 0.02 * descent.losses[1], abs=1e-5)
    assert [line["rate"] for line in logged] == [warmup_cosine(step, 5, 0.1, 2) for step in (1, 3)]


def test_training_resumes_and_stops_at_the_end(run: Run) -> None:
    descent = Descent()
    assert list(training_loop(run, descent.optimizer, descent.loss, RECIPE, 3, 5)) == [(4, False), (5, True)]
    assert list(training_loop(run, descent.optimizer, descent.loss, RECIPE, 5, 5)) == []


def test_a_stop_ends_it_with_a_checkpoint(run: Run) -> None:
    descent = Descent()
    taken = []
    for step, due in training_loop(run, descent.optimizer, descent.loss, RECIPE, 0, 100):
        taken.append((step, due))
        run.stopping = step == 1
    assert taken == [(1, False), (2, True)]


def test_workers_stop_together_and_the_first_alone_logs_and_saves(run: Run) -> None:
    def average(step: int, loss: float, stop: bool) -> tuple[float, bool]:
        """Another worker asks for a stop in the fourth iteration."""
        return loss, step == 3

    for rank, due_after in ((1, []), (0, [3, 4])):
        descent = Descent()
        worker: Any = SimpleNamespace(rank=rank, average=average)
        taken = list(training_loop(run, descent.optimizer, descent.loss, RECIPE, 0, 100, worker))
        assert [step for step, _ in taken] == [1, 2, 3, 4]
        assert [step for step, due in taken if due] == due_after
        assert [line["step"] for line in log_of(run)] == ([] if rank else [2, 4])
