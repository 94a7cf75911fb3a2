"""Linear layers of which parts of the output are read, as a layer for each part.

A transformer's feed-forward network computes values and their gates in one. OpenVINO writes that to memory, twice as
large as anything else there, adds LoRA to all of it, and copies it apart.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

_ATEN = torch.ops.aten
_ADD_LORA = "triton_diffusers.add_lora.default"


def compute_apart(module: GraphModule) -> None:
    """Replace, within ``module``, the linear layers, with LoRA or without, that are read in chunks alone."""
    graph = module.graph
    for chunk in graph.find_nodes(op="call_function", target=_ATEN.chunk.default):
        whole, _, *axis = _arguments(chunk)
        if axis not in ([-1], [len(whole.meta["val"].shape) - 1]) or not _is_a_layer(whole):
            continue
        for reader in list(chunk.users):
            _, number = _arguments(reader)  # of an operator.getitem
            begin = number * chunk.meta["val"][0].shape[-1]
            with graph.inserting_before(reader):
                part = _part(module, whole, slice(begin, begin + reader.meta["val"].shape[-1]))
            part.meta = reader.meta
            reader.replace_all_uses_with(part)
    graph.eliminate_dead_code()
    module.recompile()


def _is_a_layer(node: Node) -> bool:
    """Whether what ``node`` computes is a layer's output, and read once."""
    if len(node.users) > 1:
        return False
    inputs = _arguments(node)
    if str(node.target) == _ADD_LORA:
        return _is_a_layer(inputs[0])
    return node.target is _ATEN.linear.default and all(weight.op == "get_attr" for weight in inputs[1:])


def _part(module: GraphModule, node: Node, part: slice) -> Node:
    """A part, along the last dimension, of what ``node`` computes."""
    call = module.graph.call_function
    if str(node.target) == _ADD_LORA:
        output, inputs, down, up, packed = _arguments(node)
        up = call(_ATEN.slice.Tensor, (up, 1, part.start, part.stop))
        return call(_operation(node), (_part(module, output, part), inputs, down, up, packed))
    inputs, *weights = _arguments(node)
    return call(_operation(node), (inputs, *(_rows(module, weight, part) for weight in weights)))


def _rows(module: GraphModule, weight: Node, part: slice) -> Node:
    name = f"{weight.name}_{part.start}"
    module.register_buffer(name, operator.attrgetter(str(weight.target))(module)[part])
    return module.graph.get_attr(name)


def _arguments(node: Node) -> tuple[Any, ...]:
    return node.args


def _operation(node: Node) -> Any:
    return node.target
