"""Prompts: the syntax of attention weights, chunks of tokens, and what the weights do to text states.

``syntax`` parts a prompt's text into weighted spans; ``chunks`` makes of them token ids, as many chunks as it takes;
``weighting`` applies the weights to a chunk's text states.
"""

from __future__ import annotations

from triton_diffusers.prompts.chunks import Chunk, Prompt, PromptReader, Tokens
from triton_diffusers.prompts.weighting import apply_weights

__all__ = ["Chunk", "Prompt", "PromptReader", "Tokens", "apply_weights"]
