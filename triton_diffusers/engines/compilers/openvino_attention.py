"""Attention of quantized queries and keys, and processors that cannot compute it in one piece."""

from __future__ import annotations

from typing import Any

_ATTENTION = "ScaledDotProductAttention"
_QUERIES, _KEYS = 0, 1
# What may be between a layer's output and its heads.
_REORDERING = {"Reshape", "Transpose", "Unsqueeze", "Squeeze"}


def keep_attention_precise(model: Any) -> None:
    """Let the attention of ``model`` read its queries and keys as they are, whatever their quantization."""
    for attention in model.get_ops():
        if attention.get_type_name() == _ATTENTION:
            for index in (_QUERIES, _KEYS):
                _bypass(attention.input_value(index).get_node())


def _bypass(node: Any) -> None:
    while node.get_type_name() in _REORDERING:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "FakeQuantize":
        node.output(0).replace(node.input_value(0))
