"""OpenAI's images API: generations, edits, variations, models, and a stream of partial images."""
