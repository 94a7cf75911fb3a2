"""Measurements of the served models, against a peer and against the engine alone; see ``docs/benchmarks.md``."""
