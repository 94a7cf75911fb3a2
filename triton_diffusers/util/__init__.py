"""Helpers without knowledge of Stable Diffusion."""
