"""The CSANMT model: a transformer whose decoder gets a vector of the source's meaning in each layer.

"Learning to Generalize to More: Continuous Semantic Augmentation for Neural Machine Translation" (ACL 2022). Weights
have the names and shapes of ModelScope's checkpoints: scopes of its TensorFlow graph, and matrices as (inputs,
outputs). Dropout, noise and the loss are omitted, as they are for training only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from triton_diffusers.translate.csanmt.config import Architecture

_ROOT = "NmtModel"
_MASKED = -1e9  # added to the logits of padding
_EPSILON = 1e-6


@dataclass
class DecoderState:
    """Keys and values of the tokens so far, by layer: (rows, tokens, hidden size)."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]


@dataclass
class Encoded:
    """Encoded sources for the decoder, with one row each."""

    memory: Tensor
    bias: Tensor
    meaning: Tensor

    def select(self, rows: Tensor) -> Encoded:
        """Return these rows, in this order."""
        return Encoded(self.memory[rows], self.bias[rows], self.meaning[rows])


class CsanmtNetwork:
    """The model, in float32 on the CPU."""

    def __init__(self, config: Architecture, weights: Mapping[str, Tensor]) -> None:
        """``weights`` are a checkpoint's variables by name.

        Raises: ValueError: the vocabularies are not those of the configuration.
        """
        self._config = config
        self._weights = weights
        sides = ("Shared",) * 2 if config.shared_source_target_embedding else ("Source", "Target")
        self._source, self._target = (weights[f"{_ROOT}/{side}_Embedding/Weights"] for side in sides)
        self._source_meaning = weights[f"{_ROOT}/{sides[0]}_Semantic_Embedding/Weights"]
        tied = config.shared_embedding_and_softmax_weights
        self._softmax = self._target if tied else weights[f"{_ROOT}/Softmax"]
        sizes = [len(table) for table in (self._source, self._source_meaning, self._target, self._softmax)]
        expected = [*(config.src_vocab_size,) * 2, *(config.trg_vocab_size,) * 2]
        if sizes != expected:
            raise ValueError(f"the checkpoint has vocabularies of {sizes} pieces, expected {expected}")

    def encode(self, tokens: Tensor) -> Encoded:
        """Encode sources: (rows, tokens), padded with zeros."""
        end = torch.zeros_like(tokens[:, :1])
        tokens = torch.cat([tokens, end], 1)
        # The first end belongs to the text, all others are padding.
        mask = torch.cat([torch.ones_like(end), tokens[:, :-1] != 0], 1).float()[:, :, None]
        bias = (1.0 - mask[:, None, None, :, 0]) * _MASKED
        scale = math.sqrt(self._config.hidden_size)
        x = self._source[tokens] * scale
        if self._config.position_info_type == "absolute":
            x = x + _timing(x.shape[1], x.shape[2])
        x = x * mask + self._weights[f"{_ROOT}/encoder_input_bias"]
        relative = self._config.position_info_type == "relative"
        memory = self._encoder("encoder", x, mask, bias, self._config.num_encoder_layers, relative=relative)
        memory = self._scope("encoder").norm(memory, self._config.layer_preproc)
        meaning = self._source_meaning[tokens] * scale * mask
        layers = self._config.num_semantic_encoder_layers
        meaning = self._encoder("mini_xlm_encoder", meaning, mask, bias, layers, relative=True)
        meaning = meaning.sum(1) / mask.sum(1)
        scope = self._scope("mini_xlm_encoder")
        meaning = scope.norm(scope.linear(meaning[:, None], "pooling_layer/linear"), self._config.layer_preproc)
        return Encoded(memory, bias, meaning)

    def decode(self, source: Encoded, tokens: Tensor | None, state: DecoderState) -> Tensor:
        """Return the log-probabilities of the next token, (rows, vocabulary).

        ``tokens`` are the last ones, one per row, or None at the start; ``state`` is updated.
        """
        rows, position = len(source.memory), state.keys[0].shape[1] if state.keys else 0
        hidden = self._config.hidden_size
        x = torch.zeros(rows, 1, hidden) if tokens is None else self._target[tokens[:, None]] * math.sqrt(hidden)
        if self._config.position_info_type == "absolute":
            x = x + _timing(position + 1, hidden)[-1:]
        for layer in range(self._config.num_decoder_layers):
            x = self._decoder_layer(layer, x, source, state)
        x = self._scope("decoder").norm(x, self._config.layer_preproc)
        return torch.log_softmax(x[:, 0] @ self._softmax.T, -1)

    def _encoder(self, name: str, x: Tensor, mask: Tensor, bias: Tensor, layers: int, *, relative: bool) -> Tensor:
        before, after = self._config.layer_preproc, self._config.layer_postproc
        for layer in range(layers):
            scope = self._scope(f"{name}/layer_{layer}")
            q, k, v = scope.linear(scope.norm(x, before), "encoder_self_attention/qkv_transform").chunk(3, -1)
            attended = self._attention(scope, "encoder_self_attention", q, k, v, bias, relative=relative)
            x = scope.norm(x + attended, after)
            x = scope.norm(x + scope.feed_forward(scope.norm(x, before), "ffn_layer"), after)
            x = x * mask
        return x

    def _decoder_layer(self, layer: int, x: Tensor, source: Encoded, state: DecoderState) -> Tensor:
        before, after = self._config.layer_preproc, self._config.layer_postproc
        scope = self._scope(f"decoder/layer_{layer}")
        meaning = scope.feed_forward(scope.norm(source.meaning, before), "embedding_augmentation_layer")
        x = scope.norm(x + meaning, after)
        q, k, v = scope.linear(scope.norm(x, before), "decoder_self_attention/qkv_transform").chunk(3, -1)
        if layer == len(state.keys):
            state.keys.append(k)
            state.values.append(v)
        else:
            state.keys[layer] = torch.cat([state.keys[layer], k], 1)
            state.values[layer] = torch.cat([state.values[layer], v], 1)
        relative = self._config.position_info_type == "relative"
        k, v = state.keys[layer], state.values[layer]
        x = scope.norm(x + self._attention(scope, "decoder_self_attention", q, k, v, None, relative=relative), after)
        q = scope.linear(scope.norm(x, before), "encdec_attention/q_transform")
        k, v = scope.linear(source.memory, "encdec_attention/kv_transform").chunk(2, -1)
        x = scope.norm(x + self._attention(scope, "encdec_attention", q, k, v, source.bias, relative=False), after)
        return scope.norm(x + scope.feed_forward(scope.norm(x, before), "ffn_layer"), after)

    def _attention(
        self, scope: _Scope, name: str, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, relative: bool
    ) -> Tensor:
        """Attend by heads; ``relative`` adds terms for the distance of two tokens to the keys and the values."""
        q, k, v = (_heads(x, self._config.num_heads) for x in (q, k, v))
        q = q * q.shape[-1] ** -0.5
        logits = q @ k.transpose(-1, -2)
        if relative:
            distances = _distances(q.shape[2], k.shape[2], self._config.max_relative_dis)
            logits = logits + torch.einsum("bhqd,qkd->bhqk", q, scope[f"{name}/rpr_k"][distances])
        if bias is not None:
            logits = logits + bias
        weights = logits.softmax(-1)
        found = weights @ v
        if relative:
            found = found + torch.einsum("bhqk,qkd->bhqd", weights, scope[f"{name}/rpr_v"][distances])
        return scope.linear(found.transpose(1, 2).flatten(2), f"{name}/output_transform")

    def _scope(self, name: str) -> _Scope:
        return _Scope(self._weights, f"{_ROOT}/{name}")


class _Scope:
    """The variables below a TensorFlow variable scope, and their layers."""

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        self._weights = weights
        self._name = name
        self._norms = 0

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[f"{self._name}/{name}"]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self[f"{name}/matrix"] + self[f"{name}/bias"]

    def feed_forward(self, x: Tensor, name: str) -> Tensor:
        return self.linear(self.linear(x, f"{name}/input_layer/linear").relu(), f"{name}/output_layer/linear")

    def norm(self, x: Tensor, process: str) -> Tensor:
        """Normalise ``x`` if ``process`` says so. TensorFlow numbers the norms of a scope in order of use."""
        if process != "layer_norm":
            return x
        name = f"layer_norm_{self._norms}" if self._norms else "layer_norm"
        self._norms += 1
        scale, offset = self[f"{name}/layer_norm_scale"], self[f"{name}/layer_norm_offset"]
        return torch.nn.functional.layer_norm(x, scale.shape, scale, offset, _EPSILON)


def _heads(x: Tensor, number: int) -> Tensor:
    """Return (rows, tokens, size) as (rows, heads, tokens, size of a head)."""
    return x.view(*x.shape[:2], number, -1).transpose(1, 2)


def _distances(queries: int, keys: int, limit: int) -> Tensor:
    """Return the relative position of each of the last ``queries`` tokens to each key."""
    positions = torch.arange(keys)
    return (positions[-queries:, None] - positions[None] + limit).clamp(0, 2 * limit)


def _timing(length: int, size: int) -> Tensor:
    """Return the sinusoids of absolute positions, (length, size)."""
    number = size // 2
    rates = torch.exp(torch.arange(number).float() * (-math.log(1e4) / (number - 1)))
    angles = torch.arange(length).float()[:, None] * rates[None]
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, size % 2))
