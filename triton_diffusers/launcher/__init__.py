"""Running Triton here: find it, start it on a model repository, watch its model processes, stop it.

Nothing in this package imports torch or the engine, so that ``triton-diffusers`` starts at once.
"""
