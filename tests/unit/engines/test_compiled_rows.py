"""Rows of a call that a graph cannot compute are computed eagerly, and only those."""

from __future__ import annotations

import pytest
import torch

from tests.unit.engine_calls import predict
from tests.unit.engines.test_compiled import changed_set, noise, random_set
from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines import Batch, lora_packer
from triton_diffusers.engines.compiled import CompiledEngine
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.errors import EngineFailure


def test_a_full_difference_is_computed_eagerly_where_it_changes_something(
    components: Components, eager: EagerEngine
) -> None:
    """Keep the graph of the outermost layers if only inner layers are changed."""
    split = Split(components)
    within, outermost = (changed_set(eager, path) for path in ("unet.down_blocks.0.resnets.0.conv1", "unet.conv_out"))
    latents = noise(2, 4, 2, 2)
    call = latents, torch.arange(2.0), noise(2, 77, 192), [within, outermost]
    predict(split.engine, *call)
    assert split.calls == [("eager", [0, 1])]
    split.calls.clear()
    _, deep = predict(split.engine, *call, latents)
    assert split.calls == [("graph", [0]), ("eager", [1])]
    assert torch.equal(deep, latents)


class Split:
    """Compiled engine that records the rows of the graph and of the eager modules."""

    def __init__(self, components: Components) -> None:
        self.calls: list[tuple[str, list[float]]] = []
        graphs = {"unet": self._graph, "unet_shallow": self._graph}
        self.engine = CompiledEngine(components, graphs, lambda: self, lambda weights: self)  # type: ignore[arg-type, return-value]

    def _graph(self, latents: torch.Tensor, timesteps: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.calls.append(("graph", timesteps.tolist()))
        return latents + timesteps.view(-1, 1, 1, 1), latents

    def predict(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        self.calls.append(("eager", batch.timesteps.tolist()))
        return batch.latents + batch.timesteps.view(-1, 1, 1, 1), batch.latents

    def call(self, loras: list[LoraSet | None]) -> list[tuple[str, list[float]]]:
        self.calls.clear()
        latents, timesteps = noise(len(loras), 4, 2, 2), torch.arange(float(len(loras)))
        predictions = predict(self.engine, latents, timesteps, noise(len(loras), 77, 192), loras)[0]
        assert torch.equal(predictions, latents + timesteps.view(-1, 1, 1, 1)), "each row's own, in their order"
        return self.calls


def test_only_the_rows_that_must_are_computed_eagerly(components: Components, eager: EagerEngine) -> None:
    split, inside, outside = Split(components), random_set(eager, 2), changed_set(eager)
    assert split.call([outside, outside, inside, None]) == [("graph", [2, 3]), ("eager", [0, 1])]
    assert split.call([inside, outside, None, outside]) == [("graph", [0, 2]), ("eager", [1, 3])]
    assert split.call([outside, outside]) == [("eager", [0, 1])]


def test_residuals_go_where_their_rows_go(components: Components, eager: EagerEngine) -> None:
    """Send residuals to the graph, or to the eager engine if a row's LoRA is unsupported."""
    seen: list[tuple[str, list[float]]] = []

    class Seeing(Split):
        def _graph(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            seen.append(("graph", inputs[-1].flatten().tolist()))
            return super()._graph(*inputs)

        def predict(self, batch: Batch) -> tuple[torch.Tensor, ...]:
            assert batch.residuals is not None
            seen.append(("eager", batch.residuals[-1].flatten().tolist()))
            return super().predict(batch)

    engine = Seeing(components).engine
    outside = changed_set(eager)
    residuals = tuple(torch.arange(3.0).view(3, 1, 1, 1) for _ in range(7))
    call = noise(3, 4, 2, 2), torch.arange(3.0), noise(3, 77, 192)
    predict(engine, *call, [None, outside, None], residuals=residuals)
    assert seen == [("graph", [0, 2]), ("eager", [1])]


def test_oversized_lora_batch_is_split_by_lora(
    components: Components, eager: EagerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, one, other = Split(components), random_set(eager, 4), random_set(eager, 3)
    packed = split.engine._unet_loras.pack([one])
    assert packed is not None
    monkeypatch.setattr(lora_packer, "_MAX_BYTES", sum(tensor.nbytes for tensor in packed))
    assert split.call([one, one, other, None]) == [("graph", [0, 1]), ("graph", [2]), ("graph", [3])]
    monkeypatch.setattr(lora_packer, "_MAX_BYTES", sum(tensor.nbytes for tensor in packed) - 1)
    assert Split(components).call([one, other, one]) == [("graph", [1]), ("eager", [0, 2])]


def test_unloadable_weights_fail_only_requests_that_need_them(components: Components, eager: EagerEngine) -> None:
    def fail() -> EagerEngine:
        raise LoadError("unet cannot be read")

    split = Split(components)
    split.engine._make_eager = fail
    call = noise(1, 4, 2, 2), torch.tensor([1.0]), noise(1, 77, 192)
    for _ in range(2):
        with pytest.raises(EngineFailure, match=r"weights cannot be loaded$"):
            predict(split.engine, *call, [changed_set(eager)])
    assert split.call([random_set(eager, 2)]) == [("graph", [0])]
