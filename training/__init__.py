"""Training scripts: they make the model that the repository carries, and what is fine-tuned from it."""
