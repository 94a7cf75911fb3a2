"""How images are sampled: schedulers and profiles."""
