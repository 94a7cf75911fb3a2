"""Sampling: schedulers and profiles."""
