"""Triton without a gateway: tensors over its HTTP or gRPC."""
