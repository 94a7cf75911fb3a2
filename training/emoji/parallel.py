"""Data parallel training on one machine: single-threaded workers that meet once an iteration.

On a shared machine this is far faster than one process of many threads, whose threads meet in every operation: there
each operation waits for the core that other programs use most.
"""

# mypy: allow-untyped-calls

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import spawn


class Exchange:
    """Shared memory in which `workers` processes average their gradients and agree on when to stop."""

    def __init__(self, workers: int, size: int) -> None:
        self.workers = workers
        # Two buffers in turn: a worker may write the next gradients while another still reads the last ones.
        self.gradients = torch.zeros(2, workers, size).share_memory_()
        self.stops = torch.zeros(2, workers).share_memory_()
        self.losses = torch.zeros(2, workers).share_memory_()
        self.barrier = multiprocessing.get_context("spawn").Barrier(workers)


class Worker:
    """One process's end of an exchange."""

    def __init__(self, exchange: Exchange, rank: int, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.exchange = exchange
        self.rank = rank
        self.parameters = list(parameters)
        self.mean = torch.zeros_like(exchange.gradients[0, 0])
        self.mean_views = self._views(self.mean)
        self.own_views = [self._views(buffers[rank]) for buffers in exchange.gradients]

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """`flat` cut into tensors with the shapes and the memory layout of the parameters."""
        views, start = [], 0
        for parameter in self.parameters:
            part = flat[start : start + parameter.numel()]
            views.append(part.as_strided(parameter.shape, parameter.stride(), part.storage_offset()))
            start += parameter.numel()
        return views

    @torch.no_grad()
    def average(self, step: int, loss: float, stop: bool) -> tuple[float, bool]:
        """Set the gradients to their mean over all workers. Returns the mean loss, and whether any asks to stop."""
        turn = step % 2
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        torch._foreach_copy_(self.own_views[turn], gradients)
        self.exchange.stops[turn, self.rank] = float(stop)
        self.exchange.losses[turn, self.rank] = loss
        self.exchange.barrier.wait()
        torch.mean(self.exchange.gradients[turn], dim=0, out=self.mean)
        for parameter, view in zip(self.parameters, self.mean_views, strict=True):
            parameter.grad = view
        return float(self.exchange.losses[turn].mean()), bool(self.exchange.stops[turn].any())


def run_workers(target: Callable[..., None], workers: int, *arguments: Any) -> None:
    """Call `target(rank, *arguments)` in `workers` new processes and wait; an error in one ends all and is raised."""
    spawn(target, arguments, nprocs=workers)
