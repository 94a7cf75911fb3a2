"""Trains the emoji model: a small Stable Diffusion on Microsoft's Fluent Emoji.

Run `python -m training.emoji --help`.
"""
