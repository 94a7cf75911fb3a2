"""Lowering of exported graphs to operations that OpenVINO's frontend supports.

PyTorch could decompose them by tracing the whole graph again, which for a UNet of any size takes twice as long as the
first trace.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

_ATEN = torch.ops.aten
_Rule = Callable[..., Node]


def mutates_inputs(module: GraphModule) -> bool:
    """Return True if an operation writes to its inputs; then only a new trace knows the other readers."""
    return any(
        isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable for node in _calls(module)
    )


def lower_to_supported_ops(module: GraphModule) -> None:
    """Replace the operations in ``module`` that have a rule; the network must be in inference mode."""
    graph = module.graph
    for node in _calls(module):
        rule = _RULES.get(node.target)
        if rule is None:
            continue
        with graph.inserting_before(node):
            replacement = rule(graph, *node.args, **node.kwargs)
        replacement.meta = replacement.meta or node.meta
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)
    module.recompile()


def _calls(module: GraphModule) -> list[Node]:
    return [node for node in module.graph.nodes if node.op == "call_function"]


def _itself(graph: Graph, data: Node, *_: Any, **__: Any) -> Node:
    return data


def _conv2d(
    graph: Graph,
    data: Node,
    weight: Node,
    bias: Node | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Node:
    sides = ([*side] * (2 // len(side)) for side in (stride, padding, dilation))
    return graph.call_function(_ATEN.convolution.default, (data, weight, bias, *sides, False, [0, 0], groups))


def _group_norm(
    graph: Graph,
    data: Node,
    groups: int,
    weight: Node | None = None,
    bias: Node | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Node:
    normal = graph.call_function(_ATEN.group_norm.default, (data, groups, None, None, eps))
    channels, *sides = data.meta["val"].shape[1:]
    for operation, factor in ((_ATEN.mul.Tensor, weight), (_ATEN.add.Tensor, bias)):
        if factor is not None:
            shaped = graph.call_function(_ATEN.view.default, (factor, [channels, *[1] * len(sides)]))
            normal = graph.call_function(operation, (normal, shaped))
    return normal


def _layer_norm(
    graph: Graph,
    data: Node,
    shape: Sequence[int],
    weight: Node | None = None,
    bias: Node | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Node:
    normal = graph.call_function(_ATEN.native_layer_norm.default, (data, shape, weight, bias, eps))
    return graph.call_function(operator.getitem, (normal, 0))


def _chunk(graph: Graph, data: Node, chunks: int, axis: int = 0) -> Node:
    whole = data.meta["val"].shape[axis]
    size = -(whole // -chunks)
    sizes = [min(size, whole - begin) for begin in range(0, whole, size)]
    return graph.call_function(_ATEN.split_with_sizes.default, (data, sizes, axis))


def _pad(graph: Graph, data: Node, sides: Sequence[Any], mode: str = "constant", value: float | None = None) -> Node:
    if mode != "constant":
        return graph.call_function(_ATEN.pad.default, (data, sides, mode, value))
    return graph.call_function(_ATEN.constant_pad_nd.default, (data, sides, value or 0.0))


def _reshape(graph: Graph, data: Node, shape: Sequence[Any]) -> Node:
    return graph.call_function(_ATEN.view.default, (data, shape))


def _to(graph: Graph, data: Node, dtype: torch.dtype, *_: Any, **__: Any) -> Node:
    return graph.call_function(_ATEN._to_copy.default, (data,), {"dtype": dtype})


_RULES: Mapping[Any, _Rule] = {
    _ATEN.chunk.default: _chunk,
    _ATEN.contiguous.default: _itself,
    _ATEN.conv2d.default: _conv2d,
    _ATEN.dropout.default: _itself,
    _ATEN.group_norm.default: _group_norm,
    _ATEN.layer_norm.default: _layer_norm,
    _ATEN.pad.default: _pad,
    _ATEN.reshape.default: _reshape,
    _ATEN.to.dtype: _to,
}


_ADD_LORA = "triton_diffusers.add_lora.default"


def split_chunked_linears(module: GraphModule) -> None:
    """Split linear layers in ``module``, with or without LoRA, whose outputs are read in chunks only."""
    graph = module.graph
    for chunk in graph.find_nodes(op="call_function", target=_ATEN.chunk.default):
        whole, _, *axis = _arguments(chunk)
        if axis not in ([-1], [len(whole.meta["val"].shape) - 1]) or not _is_unshared_linear(whole):
            continue
        for reader in list(chunk.users):
            _, number = _arguments(reader)  # an operator.getitem
            begin = number * chunk.meta["val"][0].shape[-1]
            with graph.inserting_before(reader):
                part = _part(module, whole, slice(begin, begin + reader.meta["val"].shape[-1]))
            part.meta = reader.meta
            reader.replace_all_uses_with(part)
    graph.eliminate_dead_code()
    module.recompile()


def _is_unshared_linear(node: Node) -> bool:
    """Return True if ``node`` is the output of a linear layer with a single reader."""
    if len(node.users) > 1:
        return False
    inputs = _arguments(node)
    if str(node.target) == _ADD_LORA:
        return _is_unshared_linear(inputs[0])
    return node.target is _ATEN.linear.default and all(weight.op == "get_attr" for weight in inputs[1:])


def _part(module: GraphModule, node: Node, part: slice) -> Node:
    """Return a part of ``node``'s output along the last dimension."""
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
