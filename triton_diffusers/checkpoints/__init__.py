"""Checkpoints on disk: find the base model of a model directory, recognise its form, and load it."""
