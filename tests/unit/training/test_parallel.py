import pytest
import torch
from torch import nn

from training.emoji.parallel import Exchange, Worker, run_workers


def _train(rank: int, exchange: Exchange, results: torch.Tensor) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    worker = Worker(exchange, rank, list(layer.parameters()))
    inputs = torch.randn(2, 4, 2, 5, 5)
    for step in range(3):
        layer.zero_grad(set_to_none=True)
        layer(inputs[rank]).square().mean().backward()
        loss, stop = worker.average(step, loss=float(rank), stop=rank == 1 and step == 2)
    assert layer.weight.grad is not None
    results[rank, :54] = layer.weight.grad.flatten()
    results[rank, 54] = loss
    results[rank, 55] = float(stop)


@pytest.mark.filterwarnings("ignore")
def test_workers_end_with_the_mean_of_their_gradients() -> None:
    results = torch.zeros(2, 56).share_memory_()
    run_workers(_train, 2, Exchange(2, 57), results)
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3)
    inputs = torch.randn(2, 4, 2, 5, 5)
    layer(inputs.flatten(0, 1)).square().mean().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(results[0, :54], layer.weight.grad.flatten())
    torch.testing.assert_close(results[0], results[1])
    assert results[0, 54] == 0.5
    assert results[0, 55] == 1.0
