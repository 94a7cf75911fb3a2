"""Decoding a request: tensors in, a valid ``GenerationRequest`` out. Past this package nothing is unchecked."""

from triton_diffusers.decode.request import decode_request
from triton_diffusers.decode.tensors import read_values
from triton_diffusers.decode.unknown import unknown_fields

__all__ = ["decode_request", "read_values", "unknown_fields"]
