"""The loop that trains the UNet, its LoRAs and its ControlNets."""

# mypy: allow-untyped-calls

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tqdm import tqdm

from training.emoji.parallel import Worker
from training.emoji.run import Run
from training.emoji.schedule import warmup_cosine


@dataclass(frozen=True)
class Recipe:
    """The learning rate's peak, and in iterations its warm-up and how often there is a log line or a checkpoint."""

    peak_rate: float
    warmup: int
    log_every: int
    checkpoint_every: int


def training_loop(
    run: Run,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], torch.Tensor],
    recipe: Recipe,
    begun: int,
    iterations: int,
    worker: Worker | None = None,
) -> Iterator[tuple[int, bool]]:
    """Train from iteration `begun` to `iterations`. Yields after each its number, and whether a checkpoint is due.

    `loss` is that of the next batch. A `worker` averages gradients with the others; worker 0 alone logs and saves.
    A run that is asked to stop does one more iteration, for which a checkpoint is due.
    """
    (group,) = optimizer.param_groups
    primary = worker is None or worker.rank == 0
    running: float | None = None
    step, stop = begun, False
    with tqdm(total=iterations, initial=begun, desc=run.folder.name, mininterval=10, disable=not primary) as bar:
        while step < iterations and not stop:
            group["lr"] = warmup_cosine(step, iterations, recipe.peak_rate, recipe.warmup)
            error = loss()
            optimizer.zero_grad(set_to_none=True)
            error.backward()
            value, stop = error.item(), run.stopping
            if worker is not None:
                value, stop = worker.average(step, value, stop)
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            optimizer.step()
            step += 1
            bar.update()
            running = value if running is None else 0.98 * running + 0.02 * value
            if primary and step % recipe.log_every == 0:
                run.log(stage=run.folder.name, step=step, loss=round(running, 5), rate=group["lr"])
                bar.set_postfix(loss=f"{running:.4f}")
            yield step, primary and (step % recipe.checkpoint_every == 0 or step == iterations or stop)
