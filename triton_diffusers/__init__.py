"""Stable Diffusion as a Triton Inference Server model repository; see ``docs/architecture.md``."""
