"""The command line: ``triton-diffusers-client generate "a red apple" -o apple.png``."""

from triton_diffusers_client.cli.program import main

__all__ = ["main"]
