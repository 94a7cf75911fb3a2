"""The original Stable Diffusion's names of a UNet's layers, which some LoRA files use.

They number a UNet consecutively: ``input_blocks.1.0`` is the first resnet, ``input_blocks.1.1`` the attention after it,
and a downsampler is a block of its own. The numbers depend on the layers per block, so they are counted on the loaded
UNet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_BLOCK_LAYER = re.compile(
    r"(?:(?P<side>down|up)_blocks\.(?P<block>\d+)|(?P<mid>mid)_block)"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<index>\d+)\.(?P<rest>.+)"
)
_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "norm2": "out_layers.0",
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def ldm_names(paths: Collection[str]) -> Mapping[str, str]:
    """Return the original names by diffusers' module paths of one UNet."""
    found = {path: match for path in paths if (match := _BLOCK_LAYER.fullmatch(path))}
    resnets: dict[tuple[str, int], int] = {}
    attended, downsampled = set(), set()
    for match in found.values():
        block = _block(match)
        if match["kind"] == "resnets":
            resnets[block] = max(resnets.get(block, 0), int(match["index"]) + 1)
        elif match["kind"] == "attentions":
            attended.add(block)
        elif match["kind"] == "downsamplers":
            downsampled.add(block)

    first, position = {}, {"down": 1, "up": 0, "mid": 0}  # input block 0 is the first convolution
    for block in sorted(resnets):
        first[block] = position[block[0]]
        position[block[0]] += resnets[block] + (block in downsampled)

    names = {path: _OUTSIDE_BLOCKS[path] for path in paths if path in _OUTSIDE_BLOCKS}
    for path, match in found.items():
        block, kind, index, rest = _block(match), match["kind"], int(match["index"]), match["rest"]
        rest = _IN_RESNET.get(rest, rest) if kind == "resnets" else rest
        if block[0] == "mid":
            names[path] = f"middle_block.{2 * index + (kind == 'attentions')}.{rest}"
        elif kind == "downsamplers":
            names[path] = f"input_blocks.{first[block] + resnets[block]}.0.op"
        elif kind == "upsamplers":
            names[path] = f"output_blocks.{first[block] + resnets[block] - 1}.{1 + (block in attended)}.{rest}"
        else:
            side = "input_blocks" if block[0] == "down" else "output_blocks"
            names[path] = f"{side}.{first[block] + index}.{int(kind == 'attentions')}.{rest}"
    return names


def _block(match: re.Match[str]) -> tuple[str, int]:
    return (match["mid"] or match["side"], int(match["block"] or 0))
