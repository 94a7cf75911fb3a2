"""Checkpoints on the disk: where the base model of a model directory is, in which form, and how it is loaded."""
