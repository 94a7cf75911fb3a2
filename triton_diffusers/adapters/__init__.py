"""Adapters of a checkpoint: LoRAs, ControlNets and textual inversion embeddings."""
